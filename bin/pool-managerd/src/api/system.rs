//! The daemon about itself.

use axum::Json;
use axum::extract::State;
use orch_api::{DaemonStatus, Version};

use super::ApiState;

pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: "v2".to_owned() })
}

pub(super) async fn status(State(state): State<ApiState>) -> Json<DaemonStatus> {
    let pid = std::process::id();
    let mut running: Vec<_> = state.manager.snapshots();
    running.retain(|it| it.status == orch_core::Status::Running);
    // The replicas of one instance stand together.
    running.dedup_by(|one, other| one.instance == other.instance);
    Json(DaemonStatus {
        running: true,
        pid: Some(pid),
        address: Some(state.address.to_string()),
        uptime_seconds: Some(state.started.elapsed().as_secs()),
        rss_bytes: engine_process::rss_bytes(pid).map(|bytes| bytes.0),
        instances_running: running.len(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
