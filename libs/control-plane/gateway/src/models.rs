//! `/v1/models`: what a request could get now.

use llm_adapters::Problem;
use orch_core::ErrorCode;
use serde::Serialize;

use crate::caller::Caller;
use crate::live::{Snapshot, Target};

/// One name that a request may ask for, in OpenAI's shape with llama-server's `meta`.
#[derive(Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    /// The instance behind an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    /// Tokens that fit one slot. The smallest where replicas differ: a request may reach any of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u64>,
    slots: u64,
}

#[derive(Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// Every name with at least one replica that serves and that the caller may ask for, in the order of the names.
pub(crate) fn list(snapshot: &Snapshot, caller: &Caller) -> ModelList {
    let routes = snapshot.table.routes().filter(|(name, indices)| may_see(snapshot, caller, name, indices));
    let mut data: Vec<Model> = routes.filter_map(|(name, indices)| model(snapshot, name, indices)).collect();
    data.sort_by(|one, other| one.id.cmp(&other.id));
    ModelList { object: "list", data }
}

/// One name of the list.
pub(crate) fn find(snapshot: &Snapshot, caller: &Caller, name: &str) -> Result<Model, Problem> {
    let indices = snapshot.table.find(name).map(|(indices, _)| indices).unwrap_or_default();
    model(snapshot, name, indices)
        .filter(|_| may_see(snapshot, caller, name, indices))
        .ok_or_else(|| Problem::new(ErrorCode::ModelNotFound, format!("no model {name:?} is served now")))
}

fn may_see(snapshot: &Snapshot, caller: &Caller, name: &str, indices: &[usize]) -> bool {
    indices.iter().all(|&index| caller.may_ask(name, snapshot.table.instances[index].name.as_str()))
}

fn model(snapshot: &Snapshot, name: &str, indices: &[usize]) -> Option<Model> {
    let serving =
        || indices.iter().flat_map(|&index| &snapshot.targets[index]).filter(|target| target.usable());
    serving().next()?;
    let instance = &snapshot.table.instances[*indices.first()?];
    Some(Model {
        id: name.to_owned(),
        object: "model",
        created: instance.created_at.0 / 1000,
        owned_by: "llama-orch",
        root: (instance.name.as_str() != name).then(|| instance.name.to_string()),
        meta: Meta {
            n_ctx: serving().filter_map(|target: &std::sync::Arc<Target>| target.replica.slot_context).min(),
            slots: serving().map(|target| u64::from(target.replica.slots_total)).sum(),
        },
    })
}
