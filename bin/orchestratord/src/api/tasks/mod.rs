//! `/v2/tasks`: generations that are submitted, watched and cancelled.
//!
//! A task is a request like any other: it goes through the gateway under its caller's name, so that queueing, limits
//! and accounting are the same. What is special is that it belongs to nobody's connection.

mod book;
mod run;
mod stream;
mod task;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::Event as SentEvent;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use gateway::{Caller, Class, Forecast};
use orch_api::{ErrorBody, TaskAccepted, TaskEvent, TaskRequest, TaskState, TaskView, paths};
use orch_core::{ErrorCode, ExitCode, Failure, Priority};
use pool_managerd::api::{Refusal, sse, valid};
use uuid::Uuid;

use super::ControlState;
use task::{Next, Task};

pub(crate) use book::TaskBook;

/// A refusal of the gateway comes within this time, and is then the answer to the submission.
const FIRST_MOMENT: Duration = Duration::from_millis(150);

pub(super) fn router() -> Router<ControlState> {
    Router::new()
        .route(paths::TASKS, post(submit))
        .route(paths::TASK, get(show))
        .route(paths::TASK_EVENTS, get(events))
        .route(paths::TASK_CANCEL, post(cancel))
}

async fn submit(
    State(state): State<ControlState>,
    caller: Option<Extension<Caller>>,
    request: Result<Json<TaskRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<TaskAccepted>), Refusal> {
    let Json(wanted) = valid(request)?;
    let caller = who(caller);
    let task = Arc::new(Task::new(&wanted.model, &caller.id));
    let forecast = state.gateway.forecast(Some(&wanted.model), class_of(&wanted), &caller);
    let request = run::request(&wanted, task.id, caller)?;
    state.tasks.take(&task)?;
    let running = run::run(state.gateway.clone(), Arc::clone(&task), request, state.goodbye());
    state.work.spawn("task", running);
    let state_then = task.first_moment(FIRST_MOMENT).await;
    if let Some(error) = task.refusal() {
        // What was refused at once was never taken.
        state.tasks.forget(task.id);
        return Err(error.into());
    }
    let is_queued = state_then == TaskState::Queued;
    let accepted = TaskAccepted {
        task_id: task.id,
        queue_position: if is_queued { position(&task, forecast) } else { Some(0) },
        predicted_start_ms: if is_queued { starts_in(forecast) } else { Some(0) },
        events_url: paths::fill(paths::TASK_EVENTS, &[&task.id.to_string()]),
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

const fn class_of(wanted: &TaskRequest) -> Class {
    match wanted.priority {
        Some(Priority::Batch) => Class::Batch,
        Some(Priority::Interactive) | None => Class::Interactive,
    }
}

/// What the gateway told of this task, or else what it foresaw of any.
fn position(task: &Task, forecast: Option<Forecast>) -> Option<u64> {
    task.ahead().or(forecast.map(|forecast| forecast.position as u64))
}

fn starts_in(forecast: Option<Forecast>) -> Option<u64> {
    forecast?.starts_in.map(|wait| wait.as_millis() as u64)
}

async fn show(
    State(state): State<ControlState>,
    caller: Option<Extension<Caller>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<TaskView>, Refusal> {
    Ok(Json(find(&state, caller, id)?.view()))
}

async fn cancel(
    State(state): State<ControlState>,
    caller: Option<Extension<Caller>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    find(&state, caller, id)?.cancel.cancel();
    Ok(StatusCode::NO_CONTENT)
}

async fn events(
    State(state): State<ControlState>,
    caller: Option<Extension<Caller>>,
    id: Result<Path<Uuid>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let task = find(&state, caller, id)?;
    let next = match sse::last_event_id(&headers) {
        None => 0,
        Some(id) => {
            let last: u64 = id.parse().map_err(|_| {
                ErrorBody::new(ErrorCode::InvalidParams, format!("{id:?} is no id of an event"))
            })?;
            last.saturating_add(1)
        }
    };
    Ok(sse::respond(Watch { task, next }))
}

fn who(caller: Option<Extension<Caller>>) -> Caller {
    caller.map(|Extension(caller)| caller).unwrap_or_default()
}

/// A task of this caller. Those of others are as unknown as any that never were.
fn find(
    state: &ControlState,
    caller: Option<Extension<Caller>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Arc<Task>, Refusal> {
    let Path(id) = valid(id)?;
    let caller = who(caller);
    let missing = || Failure::new(ExitCode::InstanceNotFound, format!("no task {id} is known"));
    let found = state.tasks.find(id).filter(|task| task.is_open_to(&caller));
    Ok(found.ok_or_else(missing)?)
}

/// The events of a task from some place on.
struct Watch {
    task: Arc<Task>,
    next: u64,
}

impl sse::Source for Watch {
    async fn next(&mut self) -> Option<SentEvent> {
        match self.task.event(self.next).await {
            Next::Over => None,
            Next::At(id, event) => {
                // What is missing between was more than is kept; the numbers of the tokens show the gap.
                self.next = id + 1;
                Some(sent(&event)?.id(id.to_string()))
            }
        }
    }
}

fn sent(event: &TaskEvent) -> Option<SentEvent> {
    let named = SentEvent::default().event(event.name());
    let data = match event {
        TaskEvent::Queued(data) => named.json_data(data),
        TaskEvent::Started {} => Ok(named.data("{}")),
        TaskEvent::Token(data) => named.json_data(data),
        TaskEvent::Metrics(data) => named.json_data(data),
        TaskEvent::End(data) => named.json_data(data),
        TaskEvent::Error(data) => named.json_data(data),
    };
    data.ok()
}
