//! What workflows are told of the engines of this machine, and what they ask of them in advance.

use orch_core::InstanceName;
use pool_manager::{PoolManager, ReplicaSnapshot};
use workflow::{PortFuture, Serving};

use crate::cordon::Cordon;

/// The engines that are linked in.
pub(crate) struct EnginesHere {
    pub(crate) manager: PoolManager,
    pub(crate) cordon: Cordon,
    pub(crate) node_id: String,
}

impl Serving for EnginesHere {
    fn loaded(&self) -> PortFuture<Vec<String>> {
        let names = loaded_names(&self.manager.snapshots(), &self.node_id);
        Box::pin(std::future::ready(names))
    }

    fn prepare(&self, model: String) -> PortFuture<()> {
        let (manager, cordon) = (self.manager.clone(), self.cordon.clone());
        let wanted = behind(&manager.snapshots(), &model, &self.node_id);
        Box::pin(async move {
            // Nothing is loaded for requests that this node does not get.
            if let Some(instance) = wanted.filter(|_| !cordon.is_set()) {
                manager.prepare(&instance).await;
            }
        })
    }
}

/// Every name under which an engine that is ready can be asked for.
fn loaded_names(replicas: &[ReplicaSnapshot], node_id: &str) -> Vec<String> {
    let ready = replicas.iter().filter(|it| it.routable && !it.yielding);
    let mut names: Vec<String> = ready
        .flat_map(|it| std::iter::once(it.instance.as_str()).chain(it.aliases.iter().map(String::as_str)))
        .flat_map(|name| [name.to_owned(), format!("{name}@{node_id}")])
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The instance that a name means.
fn behind(replicas: &[ReplicaSnapshot], model: &str, node_id: &str) -> Option<InstanceName> {
    let name = model.strip_suffix(node_id).and_then(|name| name.strip_suffix('@')).unwrap_or(model);
    let own = replicas.iter().find(|it| it.instance.as_str() == name);
    let found = own.or_else(|| replicas.iter().find(|it| it.aliases.iter().any(|alias| alias == name)));
    found.map(|it| it.instance.clone())
}
