//! `/v1/models`: what a request could get: what serves, and what loads when it is asked for.

use std::collections::BTreeMap;

use llm_adapters::Problem;
use orch_core::ErrorCode;
use serde::Serialize;

use crate::caller::Caller;
use crate::live::{Snapshot, Target};
use crate::routes::{Destination, Routes};
use crate::table::Loadable;

/// Who owns what our own engines serve.
const OURS: &str = "llama-orch";

/// One name that a request may ask for, in OpenAI's shape with llama-server's `meta`.
#[derive(Serialize)]
pub(crate) struct Model {
    pub(crate) id: String,
    object: &'static str,
    pub(crate) created: i64,
    owned_by: String,
    /// The instance behind an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    pub(crate) meta: Meta,
}

impl Model {
    /// Whether an engine of ours serves it, and not somebody else's server.
    pub(crate) fn is_local(&self) -> bool {
        self.owned_by == OURS
    }
}

#[derive(Serialize)]
pub(crate) struct Meta {
    /// Tokens that fit one slot. The smallest where replicas differ: a request may reach any of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) n_ctx: Option<u64>,
    slots: u64,
}

#[derive(Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    pub(crate) data: Vec<Model>,
}

/// Every name that a request could be served under and that the caller may ask for, in the order of the names.
pub(crate) fn list(snapshot: &Snapshot, routes: &Routes, caller: &Caller) -> ModelList {
    let own = snapshot.table.routes().filter(|(name, indices)| may_see(snapshot, caller, name, indices));
    let own = own.filter_map(|(name, indices)| model(snapshot, name, indices));
    let written = routes.iter().filter_map(|(name, chain)| routed(snapshot, caller, name, chain));
    // A route goes before an instance of the same name.
    let by_name: BTreeMap<String, Model> =
        own.chain(written).map(|model| (model.id.clone(), model)).collect();
    ModelList { object: "list", data: by_name.into_values().collect() }
}

/// A route, as the first of its places that could serve.
fn routed(snapshot: &Snapshot, caller: &Caller, name: &str, chain: &[Destination]) -> Option<Model> {
    let allowed = chain.iter().all(|place| place.is_open_to(caller, name, snapshot));
    chain.iter().filter(|_| allowed).find_map(|place| match place {
        Destination::Local(inner) => {
            let inner = inner.as_deref()?;
            let (indices, _) = snapshot.table.find(inner)?;
            model(snapshot, inner, indices).map(|found| {
                let root = found.root.or_else(|| (inner != name).then(|| inner.to_owned()));
                Model { id: name.to_owned(), root, ..found }
            })
        }
        Destination::Remote { target, model } => Some(Model {
            id: name.to_owned(),
            object: "model",
            created: 0,
            owned_by: target.replica.key.pool_id.clone(),
            root: Some(model.clone()),
            meta: Meta { n_ctx: None, slots: u64::from(target.replica.slots_total) },
        }),
    })
}

/// One name of the list.
pub(crate) fn find(
    snapshot: &Snapshot,
    routes: &Routes,
    caller: &Caller,
    name: &str,
) -> Result<Model, Problem> {
    let written = routes.iter().find(|(route, _)| *route == name);
    let indices = snapshot.table.find(name).map(|(indices, _)| indices).unwrap_or_default();
    let own = || model(snapshot, name, indices).filter(|_| may_see(snapshot, caller, name, indices));
    written
        .and_then(|(_, chain)| routed(snapshot, caller, name, chain))
        .or_else(own)
        .ok_or_else(|| Problem::new(ErrorCode::ModelNotFound, format!("no model {name:?} is served now")))
}

fn may_see(snapshot: &Snapshot, caller: &Caller, name: &str, indices: &[usize]) -> bool {
    indices.iter().all(|&index| caller.may_ask(name, snapshot.table.instances[index].name.as_str()))
}

fn model(snapshot: &Snapshot, name: &str, indices: &[usize]) -> Option<Model> {
    let serving =
        || indices.iter().flat_map(|&index| &snapshot.targets[index]).filter(|target| target.usable());
    let comes = |&index: &usize| snapshot.table.instances[index].loadable == Loadable::OnDemand;
    if serving().next().is_none() && !indices.iter().any(comes) {
        return None;
    }
    let instance = &snapshot.table.instances[*indices.first()?];
    Some(Model {
        id: name.to_owned(),
        object: "model",
        created: instance.created_at.0 / 1000,
        owned_by: OURS.to_owned(),
        root: (instance.name.as_str() != name).then(|| instance.name.to_string()),
        meta: Meta {
            n_ctx: serving().filter_map(|target: &std::sync::Arc<Target>| target.replica.slot_context).min(),
            slots: serving().map(|target| u64::from(target.replica.slots_total)).sum(),
        },
    })
}
