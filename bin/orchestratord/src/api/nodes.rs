//! `/v2/nodes`: at home the one machine that is linked in. The node protocol needs the cloud profile.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use orch_api::{DrainRequest, ErrorBody, NodeView, Operation, paths};
use orch_core::{ErrorCode, ExitCode, Failure};
use pool_managerd::api::{Expected, Refusal, optional, valid};

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new()
        .route(paths::NODES, get(list))
        .route(paths::NODE_REGISTER, post(profile_off))
        .route(paths::NODE_HEARTBEAT, post(profile_off))
        .route(paths::NODE, delete(profile_off))
        .route(paths::NODE_CORDON, post(cordon))
        .route(paths::NODE_UNCORDON, post(uncordon))
        .route(paths::NODE_DRAIN, post(drain))
}

async fn list(State(state): State<ControlState>) -> Json<Vec<NodeView>> {
    Json(vec![view(&state)])
}

async fn cordon(
    State(state): State<ControlState>,
    Path(id): Path<String>,
) -> Result<Json<NodeView>, Refusal> {
    set(&state, &id, true).await?;
    Ok(Json(view(&state)))
}

async fn uncordon(
    State(state): State<ControlState>,
    Path(id): Path<String>,
) -> Result<Json<NodeView>, Refusal> {
    set(&state, &id, false).await?;
    Ok(Json(view(&state)))
}

/// The engines stay: what waits goes on with them when the node is uncordoned.
async fn drain(
    State(state): State<ControlState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Operation>), Refusal> {
    let DrainRequest { deadline_ms } = optional(&valid(body)?)?;
    set(&state, &id, true).await?;
    let deadline = deadline_ms.map_or(state.drain, Duration::from_millis);
    let (cordon, replicas) = (state.cordon.clone(), state.node.manager.snapshots());
    let step = async move {
        cordon.drain(replicas, deadline).await;
        Ok(())
    };
    let operation = state.node.operations.begin("drain", &id, Expected::Change, step);
    Ok((StatusCode::ACCEPTED, Json(operation)))
}

async fn set(state: &ControlState, id: &str, cordoned: bool) -> Result<(), Failure> {
    if *id != *state.node.node_id {
        let message = format!("there is no node {id:?}; this one is {:?}", state.node.node_id);
        return Err(Failure::new(ExitCode::NodeNotFound, message));
    }
    let cordon = state.cordon.clone();
    let cut = |error| Failure::new(ExitCode::General, format!("a step was cut short: {error}"));
    tokio::task::spawn_blocking(move || cordon.set(cordoned)).await.map_err(cut)?
}

fn view(state: &ControlState) -> NodeView {
    let node = &state.node;
    let pools: BTreeSet<String> =
        node.manager.snapshots().iter().map(|snapshot| snapshot.instance.to_string()).collect();
    // Whoever answers this is the node itself.
    let word = if state.cordon.is_draining() { "Draining" } else { "Online" };
    NodeView {
        node_id: node.node_id.to_string(),
        state: word.to_owned(),
        cordoned: state.cordon.is_set(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pools: pools.into_iter().collect(),
        uptime_seconds: node.started.elapsed().as_secs(),
    }
}

async fn profile_off() -> Refusal {
    let message = "nodes join a control plane with the cloud profile; this one is a home with its own node";
    ErrorBody::new(ErrorCode::ProfileOff, message).into()
}
