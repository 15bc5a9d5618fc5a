//! The daemon about itself.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use orch_api::{DaemonStatus, Event, Version};
use orch_core::{EventLevel, EventType, ExitCode, Failure, InstanceName, UnixMillis};
use pool_manager::view::told_event;
use serde::Deserialize;
use state_store::EventQuery;

use super::ApiState;
use super::answers::{Refusal, valid};

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventFilter {
    instance: Option<String>,
    level: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// RFC 3339.
    since: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
}

/// Newest first; with `after` (an event's id) the ones that came later, oldest first.
pub(super) async fn events(
    State(state): State<ApiState>,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Result<Json<Vec<Event>>, Refusal> {
    let Query(filter) = valid(filter)?;
    let query = filter.into_query()?;
    let read = move || state.node.store.events(&query).map_err(Failure::from);
    let cut = |error| Failure::new(ExitCode::General, format!("a look was cut short: {error}"));
    let events = tokio::task::spawn_blocking(read).await.map_err(cut)??;
    Ok(Json(events.iter().map(told_event).collect()))
}

impl EventFilter {
    fn into_query(self) -> Result<EventQuery, Failure> {
        let bad =
            |field: &str, value: &str| Failure::new(ExitCode::Usage, format!("{field} cannot be {value:?}"));
        let instance = self.instance.map(|name| InstanceName::new(&name).map_err(|_| bad("instance", &name)));
        let level = self.level.map(|it| EventLevel::from_label(&it).ok_or_else(|| bad("level", &it)));
        let event_type = self.event_type.map(|it| EventType::from_label(&it).ok_or_else(|| bad("type", &it)));
        let since = self.since.map(|it| UnixMillis::from_rfc3339(&it).ok_or_else(|| bad("since", &it)));
        Ok(EventQuery {
            instance: instance.transpose()?,
            minimum_level: level.transpose()?,
            event_type: event_type.transpose()?,
            since: since.transpose()?,
            after_id: self.after,
            limit: self.limit.unwrap_or(50).min(1000),
            newest_first: self.after.is_none(),
        })
    }
}
