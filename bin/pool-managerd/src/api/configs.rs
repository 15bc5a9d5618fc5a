//! Instances written: new ones, and changes of what is there.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use instance_config::{LoadedInstance, config_hash, create_from, load_file, refuse_claimed_port, save};
use orch_api::{ConfigDocument, InstanceChange};
use orch_core::{ExitCode, Failure, UnixMillis};
use pool_manager::Node;
use serde_json::{Map, Value, json};

use super::ApiState;
use super::answers::{Refusal, valid};

/// How long another change of the same instance is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);

type Document = Result<Json<ConfigDocument>, JsonRejection>;

pub(super) async fn create(
    State(state): State<ApiState>,
    document: Document,
) -> Result<(StatusCode, Json<InstanceChange>), Refusal> {
    let Json(ConfigDocument(document)) = valid(document)?;
    let fields = document.keys().cloned().collect();
    let node = std::sync::Arc::clone(&state.node);
    let instance = away(move || write_new(&node, &document)).await?;
    state.manager.refresh().await?;
    Ok((StatusCode::CREATED, Json(told(&instance, fields, false))))
}

pub(super) async fn change(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    patch: Document,
) -> Result<Json<InstanceChange>, Refusal> {
    let Json(ConfigDocument(patch)) = valid(patch)?;
    Ok(Json(apply(&state, &name, patch).await?))
}

/// Changes a config: in effect where it can be when this returns.
pub async fn apply(
    state: &ApiState,
    name: &str,
    patch: Map<String, Value>,
) -> Result<InstanceChange, Failure> {
    let node = std::sync::Arc::clone(&state.node);
    let selector = name.to_owned();
    let (before, after, fields) = away(move || write_change(&node, &selector, &patch)).await?;
    state.manager.refresh().await?;
    let runs = state
        .manager
        .snapshots()
        .iter()
        .any(|it| it.instance == after.config.name && it.status.has_process());
    let concerns_engine = config_hash(&before.config) != config_hash(&after.config);
    Ok(told(&after, fields, runs && concerns_engine))
}

/// The dot cannot occur in an instance name, so no instance's lock has this path. It is the one of `init`.
pub(super) fn write_new(node: &Node, document: &Map<String, Value>) -> Result<LoadedInstance, Failure> {
    let lock = node.home.locks().join(".init.lock");
    let _guard = engine_process::acquire(&lock, "create", LOCK_WAIT)?;
    let is_free = |port| engine_process::is_free("127.0.0.1", port);
    create_from(&node.home, &catalog(node)?, document, &is_free, UnixMillis::now())
}

fn write_change(
    node: &Node,
    selector: &str,
    patch: &Map<String, Value>,
) -> Result<(LoadedInstance, LoadedInstance, Vec<String>), Failure> {
    let catalog = catalog(node)?;
    let known = catalog.select(selector)?;
    let lock = node.home.instance_lock(&known.config.name);
    let _guard = engine_process::acquire(&lock, "change", LOCK_WAIT)?;
    // What somebody else has written in the meantime counts.
    let before = load_file(&known.path).map_err(|broken| broken.failure())?;
    let mut after = before.clone();
    let fields = after.merge(patch)?;
    refuse_claimed_port(&catalog, &before, &after)?;
    save(&mut after, UnixMillis::now())?;
    Ok((before, after, fields))
}

fn catalog(node: &Node) -> Result<instance_config::Catalog, Failure> {
    instance_config::discover(&node.home).map_err(|error| {
        let folder = node.home.instances();
        Failure::new(ExitCode::General, format!("cannot read {}: {error}", folder.display()))
    })
}

fn told(instance: &LoadedInstance, fields: Vec<String>, restart_needed: bool) -> InstanceChange {
    InstanceChange {
        name: instance.config.name.to_string(),
        path: instance.path.display().to_string(),
        fields,
        restart_needed,
        findings: instance.findings.iter().map(|finding| json!(finding)).collect(),
    }
}

pub(super) async fn away<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let cut = |error| Failure::new(ExitCode::General, format!("a step was cut short: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(cut)?
}
