//! `/v2/pools/{id}/reload`: another model for an instance, which serves its old one until the new one has proved itself.
//!
//! The proof is a trial: an instance of its own beside the old one, listed like any other, which is removed as soon as
//! it has loaded or failed. Trials that a killed daemon left behind are removed when the next one starts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use instance_config::{LoadedInstance, check_model, resolve_model_path};
use orch_api::{ErrorBody, Operation, ReloadRequest};
use orch_core::{ErrorCode, ExitCode, Failure, InstanceName};
use orch_runtime::Tasks;
use pool_manager::PoolManager;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::ApiState;
use super::answers::{Refusal, valid};
use super::configs::{apply, away, write_new};
use super::instances::find;
use super::operations::Expected;

/// What marks a trial, at the end of its name and as its tag.
const SUFFIX: &str = "-reload";
const TAG: &str = "llama-orch-reload-trial";
/// What of a config says how its engine runs. The rest of a trial's is its own.
const SECTIONS: [&str; 7] = ["binary", "model", "server", "gpu", "env", "args", "healthcheck"];
/// Requests in flight may take so long to finish before the old engine goes.
const DRAIN: Duration = Duration::from_secs(30);

/// A reload that nothing speaks against so far.
struct Reload {
    instance: LoadedInstance,
    trial: InstanceName,
    /// The config of the trial.
    document: Map<String, Value>,
    new_model: String,
}

/// Answers when the new model has proved itself, or has not: then nothing has changed.
pub(super) async fn reload(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    request: Result<Json<ReloadRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Operation>), Refusal> {
    let Json(ReloadRequest { new_model_ref }) = valid(request)?;
    let instance = find(&state, &id).await?;
    let reload = prepare(&state, instance, new_model_ref)
        .map_err(|failure| refused(ErrorCode::InvalidParams, failure))?;
    let name = reload.instance.config.name.to_string();
    let (tell, proof) = oneshot::channel();
    let step = run(state.clone(), reload, tell);
    let operation = state.operations.begin("reload", &name, Expected::Change, step);
    match proof.await {
        Ok(Ok(())) => Ok((StatusCode::ACCEPTED, Json(operation))),
        Ok(Err(failure)) => {
            let message = format!("{name} keeps its model: {}", failure.message);
            Err(refused(ErrorCode::Conflict, Failure { message, ..failure }))
        }
        Err(_) => Err(Failure::new(ExitCode::General, "the daemon is stopping").into()),
    }
}

fn refused(code: ErrorCode, failure: Failure) -> Refusal {
    let Failure { exit, message, hint } = failure;
    ErrorBody { hint, exit_code: Some(exit), ..ErrorBody::new(code, message) }.into()
}

/// Finds out whether the config would be valid and the file be a model.
fn prepare(state: &ApiState, instance: LoadedInstance, new_model: String) -> Result<Reload, Failure> {
    let mut changed = instance.clone();
    changed.merge(&model_patch(&new_model))?;
    let file = resolve_model_path(&changed.config, &changed.path, &state.node.home);
    check_model(&file)?;
    let file = file.to_str().ok_or_else(|| {
        Failure::new(ExitCode::ConfigInvalid, format!("{} cannot be written in a config", file.display()))
    })?;
    let trial = trial_name(&instance.config.name)?;
    let Ok(Value::Object(mut document)) = serde_json::to_value(&changed.config) else {
        return Err(Failure::new(ExitCode::General, "the config cannot be written as JSON"));
    };
    document.retain(|section, _| SECTIONS.contains(&section.as_str()));
    document["model"]["path"] = json!(file);
    if let Some(Value::Object(server)) = document.get_mut("server") {
        // A free one is found.
        server.shift_remove("port");
    }
    document.insert("name".to_owned(), json!(trial));
    document.insert("tags".to_owned(), json!([TAG]));
    document.insert("restart_policy".to_owned(), json!({"enabled": false}));
    Ok(Reload { instance, trial, document, new_model })
}

fn model_patch(model: &str) -> Map<String, Value> {
    Map::from_iter([("model".to_owned(), json!({"path": model}))])
}

fn trial_name(name: &InstanceName) -> Result<InstanceName, Failure> {
    let room = InstanceName::MAX_LENGTH - SUFFIX.len();
    // Names are ASCII.
    let beginning = &name.as_str()[..name.as_str().len().min(room)];
    InstanceName::new(format!("{beginning}{SUFFIX}"))
        .map_err(|error| Failure::new(ExitCode::General, format!("no trial can be named: {error}")))
}

/// Goes on whether or not anybody waits.
async fn run(
    state: ApiState,
    reload: Reload,
    tell: oneshot::Sender<Result<(), Failure>>,
) -> Result<(), Failure> {
    let proof = prove(&state, &reload).await;
    // Whoever asked may have left.
    let _ = tell.send(proof.clone());
    proof?;
    exchange(&state, &reload).await
}

/// Loads the new model beside the old one.
async fn prove(state: &ApiState, reload: &Reload) -> Result<(), Failure> {
    let (node, document) = (Arc::clone(&state.node), reload.document.clone());
    // One that is there already is that of another reload.
    away(move || write_new(&node, &document)).await?;
    let loaded = load(state, reload.trial.as_str()).await;
    let reaped = state.manager.remove(reload.trial.as_str(), true, false).await;
    if let Err(failure) = &reaped {
        tracing::warn!(trial = %reload.trial, %failure, "a reload's trial could not be removed");
    }
    loaded.and(reaped)
}

async fn load(state: &ApiState, trial: &str) -> Result<(), Failure> {
    let plan = state.manager.memory(Some(trial)).await?.and_then(|report| report.plan);
    // Nobody has to go for a trial, least of all the one that it is to replace.
    if let Some(plan) = plan.filter(|plan| plan.verdict != "fits") {
        let why = if plan.obstacles.is_empty() {
            String::new()
        } else {
            format!(": {}", plan.obstacles.join("; "))
        };
        let message = format!("memory does not hold the old and the new model together{why}");
        return Err(Failure::new(ExitCode::StartFailed, message));
    }
    state.manager.up(trial).await
}

/// The old engine goes and the new one comes; where it does not, the old one comes back.
async fn exchange(state: &ApiState, reload: &Reload) -> Result<(), Failure> {
    let (manager, name) = (&state.manager, reload.instance.config.name.as_str());
    let runs =
        || manager.snapshots().iter().any(|it| it.instance.as_str() == name && it.status.has_process());
    let ran = runs();
    apply(state, name, model_patch(&reload.new_model)).await?;
    if !ran {
        return Ok(());
    }
    let Err(failure) = manager.restart(name, false, DRAIN).await else { return Ok(()) };
    let back = async {
        apply(state, name, model_patch(&reload.instance.config.model.path)).await?;
        manager.restart(name, false, Duration::ZERO).await
    };
    let end = match back.await {
        Ok(()) => "it serves its old model again".to_owned(),
        Err(second) => format!("nor could its old model be brought back: {second}"),
    };
    let message = format!("{name} could not be started with its new model ({failure}); {end}");
    Err(Failure { message, ..failure })
}

/// Removes the trials that are there before anybody can ask for one. They are found when this returns.
pub async fn reap_trials(manager: &PoolManager, tasks: &Tasks) {
    let catalog = match manager.refresh().await {
        Ok(catalog) => catalog,
        Err(failure) => return tracing::warn!(%failure, "trials of reloads could not be looked for"),
    };
    let is_trial = |it: &&LoadedInstance| {
        it.config.name.as_str().ends_with(SUFFIX) && it.config.tags.iter().any(|tag| tag == TAG)
    };
    for trial in catalog.instances.iter().filter(is_trial) {
        let (manager, name) = (manager.clone(), trial.config.name.clone());
        tasks.spawn("reload-trial", async move {
            match manager.remove(name.as_str(), true, false).await {
                Ok(()) => tracing::info!(trial = %name, "what was left of a reload was removed"),
                Err(failure) => {
                    tracing::warn!(trial = %name, %failure, "a reload's trial could not be removed");
                }
            }
        });
    }
}
