//! `/v2/instances`: what there is, and starting, stopping and removing it.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use instance_config::LoadedInstance;
use orch_api::{Operation, RemoveRequest, StartRequest, StopRequest};
use orch_core::{Failure, InstanceName, ReplicaId, UnixMillis};
use pool_manager::view::{InstanceView, Viewer};
use serde_json::Value;

use super::ApiState;
use super::answers::{Refusal, optional, valid};
use super::operations::Expected;
use crate::compose;

type Accepted = Result<(StatusCode, Json<Operation>), Refusal>;

pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<Vec<InstanceView>>, Refusal> {
    let catalog = state.manager.refresh().await?;
    let rows = look(state, move |viewer| viewer.instances(&catalog)).await?;
    Ok(Json(rows))
}

pub(super) async fn describe(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let instance = match find(&state, &name).await {
        Ok(instance) => instance,
        Err(failure) => return describe_remnant(state, name, failure).await,
    };
    let home = state.node.home.clone();
    let document = look(state, move |viewer| {
        let profile = compose::engine_profile(&home, &instance.config, compose::Memory::ReadOnly);
        viewer.describe(&instance, &profile)
    });
    Ok(Json(document.await?))
}

/// An instance whose config is gone or broken is described as far as something is left of it.
async fn describe_remnant(state: ApiState, name: String, failure: Failure) -> Result<Json<Value>, Refusal> {
    let Ok(known) = InstanceName::new(&name) else { return Err(failure.into()) };
    let catalog = state.manager.refresh().await?;
    let broken = catalog.broken.into_iter().find(|it| it.name == name);
    let document = look(state, move |viewer| viewer.describe_remnant(&known, broken.as_ref())).await?;
    document.map_or(Err(failure.into()), |document| Ok(Json(document)))
}

pub(super) async fn start(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Accepted {
    let request: StartRequest = optional(&valid(body)?)?;
    let instance = find(&state, &name).await?;
    let name = instance.config.name.to_string();
    let manager = state.manager.clone();
    let expected = Expected::of(request.expect_change);
    Ok(accepted(&state, "start", &name.clone(), expected, async move { manager.up(&name).await }))
}

pub(super) async fn stop(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Accepted {
    let request: StopRequest = optional(&valid(body)?)?;
    // A config that broke or went away does not keep its engine from being stopped.
    let name = find(&state, &name).await.map_or(name, |instance| instance.config.name.to_string());
    let manager = state.manager.clone();
    let drain = Duration::from_millis(request.drain_ms);
    let expected = Expected::of(request.expect_change);
    let step = {
        let name = name.clone();
        async move { manager.down(&name, request.force, drain).await }
    };
    Ok(accepted(&state, "stop", &name, expected, step))
}

pub(super) async fn restart(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Accepted {
    let request: StopRequest = optional(&valid(body)?)?;
    let instance = find(&state, &name).await?;
    let name = instance.config.name.to_string();
    let manager = state.manager.clone();
    let drain = Duration::from_millis(request.drain_ms);
    let step = async move { manager.restart(&name, request.force, drain).await };
    Ok(accepted(&state, "restart", instance.config.name.as_str(), Expected::Change, step))
}

pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    request: Result<Query<RemoveRequest>, QueryRejection>,
) -> Accepted {
    let Query(request) = valid(request)?;
    let found = find(&state, &name).await;
    if let Err(failure) = &found {
        // What is left of an instance can be removed as well; a name of which nothing is known is refused at once.
        let sought = name.clone();
        let known = state.manager.knows_remnant(&sought).await?;
        if !known {
            return Err(failure.clone().into());
        }
    }
    let name = found.map_or(name, |instance| instance.config.name.to_string());
    let manager = state.manager.clone();
    let shown = name.clone();
    let step = async move { manager.remove(&name, request.force, request.keep_logs).await };
    Ok(accepted(&state, "remove", &shown, Expected::Change, step))
}

fn accepted<F>(
    state: &ApiState,
    kind: &str,
    name: &str,
    expected: Expected,
    step: F,
) -> (StatusCode, Json<Operation>)
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    (StatusCode::ACCEPTED, Json(state.operations.begin(kind, name, expected, step)))
}

pub(super) async fn find(state: &ApiState, selector: &str) -> Result<LoadedInstance, Failure> {
    let catalog = state.manager.refresh().await?;
    catalog.select(selector).cloned()
}

/// Makes a view on a blocking thread, with the slots as the gateway counts them.
pub(super) async fn look<T, F>(state: ApiState, view: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(&Viewer<'_>) -> Result<T, Failure> + Send + 'static,
{
    let work = move || {
        let reader: &state_store::StateReader = &state.node.store;
        let replicas = state.manager.snapshots();
        let slots = |name: &InstanceName, replica: ReplicaId| state.slots_of(&replicas, name, replica);
        let viewer = Viewer {
            home: &state.node.home,
            reader: Some(reader),
            node_id: &state.node_id,
            now: UnixMillis::now(),
            slots: &slots,
        };
        view(&viewer)
    };
    let cut = |error| Failure::new(orch_core::ExitCode::General, format!("a look was cut short: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(cut)?
}
