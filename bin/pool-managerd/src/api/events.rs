//! `/v2/events`: what happened, looked up and followed.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::Event as SentEvent;
use axum::response::{IntoResponse, Response};
use orch_api::Event;
use orch_core::{EventLevel, EventType, ExitCode, Failure, InstanceName, UnixMillis};
use pool_manager::view::told_event;
use serde::Deserialize;
use state_store::EventQuery;

use super::ApiState;
use super::answers::{Refusal, valid};
use super::sse::{self, Source};

const USUAL_LIMIT: usize = 50;
const MOST: usize = 1000;
/// While followed the history is looked at so often.
const PACE: Duration = Duration::from_millis(250);
/// So many at a time while following.
const BATCH: usize = 200;

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
    follow: Option<String>,
}

/// Newest first; with `after` (an event's id) the ones that came later, oldest first. Followed: oldest first, and then
/// as they happen.
pub(super) async fn list(
    State(state): State<ApiState>,
    filter: Result<Query<EventFilter>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(filter) = valid(filter)?;
    let follow = is_wanted("follow", filter.follow.as_deref())?;
    let resumed = sse::last_event_id(&headers).map(parse_id).transpose()?;
    let mut query = filter.into_query()?;
    if !follow {
        return Ok(Json(read(&state, query).await?).into_response());
    }
    if let Some(id) = resumed {
        query = EventQuery { after_id: Some(id), newest_first: false, ..query };
    }
    let mut begin = read(&state, query.clone()).await?;
    if query.newest_first {
        begin.reverse();
    }
    let last = begin.last().map(|event| event.id).or(query.after_id).unwrap_or(0);
    let query = EventQuery { newest_first: false, limit: BATCH, ..query };
    Ok(sse::respond(Follow { state, query, last, pending: begin.into() }))
}

/// A switch of a query: `?follow` alone is enough.
pub(super) fn is_wanted(name: &str, value: Option<&str>) -> Result<bool, Refusal> {
    match value {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            Err(Failure::new(ExitCode::Usage, format!("{name} is true or false, not {other:?}")).into())
        }
    }
}

fn parse_id(text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::new(ExitCode::Usage, format!("{text:?} is no id of an event")))
}

async fn read(state: &ApiState, query: EventQuery) -> Result<Vec<Event>, Failure> {
    let node = std::sync::Arc::clone(&state.node);
    let read = move || node.store.events(&query).map_err(Failure::from);
    let cut = |error| Failure::new(ExitCode::General, format!("a look was cut short: {error}"));
    let events = tokio::task::spawn_blocking(read).await.map_err(cut)??;
    Ok(events.iter().map(told_event).collect())
}

/// The history from some event on.
struct Follow {
    state: ApiState,
    query: EventQuery,
    last: i64,
    pending: VecDeque<Event>,
}

impl Source for Follow {
    async fn next(&mut self) -> Option<SentEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.last = event.id;
                let sent = SentEvent::default().id(event.id.to_string()).event("event").json_data(&event);
                return sent.ok();
            }
            let query = EventQuery { after_id: Some(self.last), ..self.query.clone() };
            match read(&self.state, query).await {
                Ok(events) => self.pending = events.into(),
                Err(failure) => tracing::warn!(%failure, "the history cannot be read for a follower"),
            }
            if self.pending.is_empty() {
                tokio::select! {
                    () = self.state.ending.cancelled() => return None,
                    () = tokio::time::sleep(PACE) => {}
                }
            }
        }
    }
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
            limit: self.limit.unwrap_or(USUAL_LIMIT).min(MOST),
            newest_first: self.after.is_none(),
        })
    }
}
