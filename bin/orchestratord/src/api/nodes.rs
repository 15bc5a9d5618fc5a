//! `/v2/nodes`: at home the one machine that is linked in. The node protocol needs the cloud profile.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use orch_api::{ErrorBody, NodeView, paths};
use orch_core::ErrorCode;
use pool_managerd::api::Refusal;

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new()
        .route(paths::NODES, get(list))
        .route(paths::NODE_REGISTER, post(profile_off))
        .route(paths::NODE_HEARTBEAT, post(profile_off))
        .route(paths::NODE, delete(profile_off))
}

async fn list(State(state): State<ControlState>) -> Json<Vec<NodeView>> {
    let node = &state.node;
    let pools: BTreeSet<String> =
        node.manager.snapshots().iter().map(|snapshot| snapshot.instance.to_string()).collect();
    Json(vec![NodeView {
        node_id: node.node_id.to_string(),
        // Whoever answers this is the node itself.
        state: "Online".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pools: pools.into_iter().collect(),
        uptime_seconds: node.started.elapsed().as_secs(),
    }])
}

async fn profile_off() -> Refusal {
    let message = "nodes join a control plane with the cloud profile; this one is a home with its own node";
    ErrorBody::new(ErrorCode::ProfileOff, message).into()
}
