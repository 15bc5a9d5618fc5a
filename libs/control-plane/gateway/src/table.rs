//! The routing table: what the gateway knows about the world. Plain data, published as a whole.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use orch_core::{InstanceName, ReplicaId, Status, UnixMillis};

/// Names one engine in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaKey {
    pub node_id: String,
    pub pool_id: String,
    pub replica_id: ReplicaId,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.node_id, self.pool_id, self.replica_id)
    }
}

/// One engine as its node last described it.
#[derive(Clone, PartialEq)]
pub struct Replica {
    pub key: ReplicaKey,
    /// Where the engine listens.
    pub address: SocketAddr,
    /// As the engine, or whoever installed it, names its version.
    pub engine_version: Option<String>,
    /// The engine's own key; clients never see it.
    pub api_key: Option<String>,
    /// Loaded and answering.
    pub ready: bool,
    /// Finishes what it has and gets nothing new.
    pub draining: bool,
    pub slots_total: u32,
    /// Tokens that fit one slot, as the engine reports it.
    pub slot_context: Option<u64>,
    /// The devices that it may use, as the engine was told (`CUDA0`); `None` where it was told nothing.
    pub device_mask: Option<String>,
    /// Bytes of device memory that are free on its devices, where that is known.
    pub free_vram: Option<u64>,
    /// When the last good probe was. A replica that refused a connection is left out until this grows.
    pub last_good_probe: UnixMillis,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("key", &self.key)
            .field("address", &self.address)
            .field("engine_version", &self.engine_version)
            .field("has_api_key", &self.api_key.is_some())
            .field("ready", &self.ready)
            .field("draining", &self.draining)
            .field("slots_total", &self.slots_total)
            .field("slot_context", &self.slot_context)
            .field("device_mask", &self.device_mask)
            .field("free_vram", &self.free_vram)
            .field("last_good_probe", &self.last_good_probe)
            .finish()
    }
}

/// What a request may hope for while an instance serves nobody, from least to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loadable {
    /// Somebody has to start it: a request is told so at once.
    #[default]
    No,
    /// It is on its way: a request waits for it.
    Starting,
    /// A request that waits for it makes it load.
    OnDemand,
}

/// One instance with its engines. Stopped instances are listed too, without replicas, so that a request for
/// one can be told what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutedInstance {
    pub name: InstanceName,
    /// Further names under which clients may ask for it; several instances may share one.
    pub aliases: Vec<String>,
    pub status: Status,
    pub loadable: Loadable,
    /// When it became what it is, for listings.
    pub created_at: UnixMillis,
    pub replicas: Vec<Replica>,
}

/// A machine with engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedNode {
    pub id: String,
    /// Whether it can be reached.
    pub online: bool,
}

/// Every instance, and the names that lead to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    pub(crate) instances: Vec<RoutedInstance>,
    pub(crate) nodes: Vec<RoutedNode>,
    routes: HashMap<String, Vec<usize>>,
}

impl RoutingTable {
    /// Builds the routes. The name of an instance goes before the same word as somebody's alias.
    pub fn new(instances: Vec<RoutedInstance>) -> Self {
        let mut routes: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, instance) in instances.iter().enumerate() {
            for alias in &instance.aliases {
                let indices = routes.entry(alias.clone()).or_default();
                if !indices.contains(&index) {
                    indices.push(index);
                }
            }
        }
        for (index, instance) in instances.iter().enumerate() {
            routes.insert(instance.name.to_string(), vec![index]);
        }
        Self { instances, nodes: Vec::new(), routes }
    }

    /// The same table with the nodes that clients may name, whether or not anything runs there now.
    #[must_use]
    pub fn with_nodes(mut self, nodes: Vec<RoutedNode>) -> Self {
        self.nodes = nodes;
        self
    }

    /// The instances that a model name leads to, and the node it insists on (`name@node`).
    pub(crate) fn find<'m>(&self, model: &'m str) -> Option<(&[usize], Option<&'m str>)> {
        if let Some(indices) = self.routes.get(model) {
            return Some((indices, None));
        }
        let (name, node) = model.rsplit_once('@')?;
        self.routes.get(name).map(|indices| (&indices[..], Some(node)))
    }

    /// All names that clients may use, each with its instances.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.routes.iter().map(|(name, indices)| (name.as_str(), &indices[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, aliases: &[&str]) -> RoutedInstance {
        RoutedInstance {
            name: InstanceName::new(name).unwrap(),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            status: Status::Stopped,
            loadable: Loadable::No,
            created_at: UnixMillis(0),
            replicas: Vec::new(),
        }
    }

    #[test]
    fn names_go_before_aliases_and_aliases_may_be_shared() {
        let table = RoutingTable::new(vec![instance("a", &["b", "both", "both"]), instance("b", &["both"])]);
        assert_eq!(table.find("a"), Some((&[0][..], None)));
        assert_eq!(table.find("b"), Some((&[1][..], None)));
        assert_eq!(table.find("both"), Some((&[0, 1][..], None)));
        assert_eq!(table.find("c"), None);
    }

    #[test]
    fn a_node_may_be_named_behind_the_model() {
        let table = RoutingTable::new(vec![instance("a", &["user@host"])]);
        assert_eq!(table.find("a@node-1"), Some((&[0][..], Some("node-1"))));
        assert_eq!(table.find("user@host"), Some((&[0][..], None)), "an alias may hold the sign itself");
        assert_eq!(table.find("c@node-1"), None);
    }
}
