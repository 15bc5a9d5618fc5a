//! Answers to Ollama's own questions, from the routing table. What it does not know is left out.

use bytes::Bytes;
use llm_adapters::Problem;
use orch_core::{ErrorCode, UnixMillis};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::live::Snapshot;
use crate::models;
use crate::routes::Routes;

/// What Ollama's libraries put behind a name that has no tag.
pub(crate) const DEFAULT_TAG: &str = ":latest";

/// `/api/version`.
pub(crate) fn version() -> Value {
    json!({"version": env!("CARGO_PKG_VERSION")})
}

/// `/api/tags`: every name that a request may ask for.
pub(crate) fn tags(snapshot: &Snapshot, routes: &Routes, caller: &Caller) -> Value {
    let models: Vec<Value> = models::list(snapshot, routes, caller).data.iter().map(entry).collect();
    json!({"models": models})
}

/// `/api/ps`: those of them that are loaded.
pub(crate) fn loaded(snapshot: &Snapshot, routes: &Routes, caller: &Caller) -> Value {
    let is_loaded = |name: &str| {
        let indices = snapshot.table.find(name).map(|(indices, _)| indices).unwrap_or_default();
        indices.iter().flat_map(|&index| &snapshot.targets[index]).any(|target| target.usable())
    };
    let list = models::list(snapshot, routes, caller);
    let models = list.data.iter().filter(|model| is_loaded(&model.id));
    let models: Vec<Value> = models
        .map(|model| {
            let mut entry = entry(model);
            if let Some(context) = model.meta.n_ctx {
                entry["context_length"] = context.into();
            }
            entry
        })
        .collect();
    json!({"models": models})
}

/// The model that a body names.
pub(crate) fn name_in(body: &Bytes) -> Result<String, Problem> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = asked["model"].as_str().or(asked["name"].as_str());
    name.map(str::to_owned).ok_or_else(|| {
        Problem::new(ErrorCode::InvalidParams, "the body has to be a JSON object with a `model`")
            .param("model")
    })
}

/// `/api/show`. The context is told as the parameter that sets it in an Ollama model.
pub(crate) fn show(
    snapshot: &Snapshot,
    routes: &Routes,
    caller: &Caller,
    name: &str,
) -> Result<Value, Problem> {
    let model = models::find(snapshot, routes, caller, name)?;
    let mut shown = entry(&model);
    let fields = shown.as_object_mut().expect("an entry is an object");
    fields.retain(|key, _| key == "modified_at" || key == "details");
    // Ollama's own library wants it to be there.
    fields.insert("model_info".to_owned(), json!({}));
    if let Some(context) = model.meta.n_ctx {
        fields.insert("parameters".to_owned(), format!("num_ctx {context}").into());
    }
    Ok(shown)
}

fn entry(model: &models::Model) -> Value {
    let mut entry = json!({"name": model.id, "model": model.id});
    // Of what somebody else serves nothing but the name is known.
    if model.is_local() {
        if model.created > 0 {
            entry["modified_at"] = UnixMillis(model.created * 1000).to_rfc3339().into();
        }
        entry["details"] = json!({"format": "gguf"});
    }
    entry
}
