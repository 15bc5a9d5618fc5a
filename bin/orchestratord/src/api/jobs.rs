//! `/v2/jobs`: workflows that are submitted, looked at, followed, cancelled, resumed and decided upon.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use gateway::Caller;
use orch_api::{ErrorBody, JobAccepted, JobDecision, JobRequest, JobSummary, ResumeRequest, paths};
use orch_core::ErrorCode;
use pool_managerd::api::{Refusal, optional, sse, valid};
use serde::Deserialize;
use serde_json::Value;

use super::ControlState;

const LISTED: usize = 50;
const MOST_LISTED: usize = 1000;

/// Texts of input files come with a submission: its body may be as long as any other request's.
pub(super) fn router(body_bytes: u64) -> Router<ControlState> {
    Router::new()
        .route(paths::JOBS, get(list).post(submit))
        .route(paths::JOB, get(show))
        .route(paths::JOB_EVENTS, get(events))
        .route(paths::JOB_CANCEL, post(cancel))
        .route(paths::JOB_RESUME, post(resume))
        .route(paths::JOB_DECIDE, post(decide))
        .layer(DefaultBodyLimit::max(usize::try_from(body_bytes).unwrap_or(usize::MAX)))
}

type Who = Option<Extension<Caller>>;

fn who(caller: Who) -> Caller {
    caller.map(|Extension(caller)| caller).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
}

async fn submit(
    State(state): State<ControlState>,
    caller: Who,
    request: Result<Json<JobRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<JobAccepted>), Refusal> {
    let Json(request) = valid(request)?;
    let (is_new, accepted) = state.jobs.submit(&who(caller), request).await?;
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(accepted)))
}

async fn list(
    State(state): State<ControlState>,
    caller: Who,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<JobSummary>>, Refusal> {
    let Query(ListQuery { limit }) = valid(query)?;
    let limit = limit.unwrap_or(LISTED).min(MOST_LISTED);
    Ok(Json(state.jobs.list(&who(caller), limit).await?))
}

async fn show(
    State(state): State<ControlState>,
    caller: Who,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    Ok(Json(state.jobs.show(&who(caller), &id).await?))
}

async fn events(
    State(state): State<ControlState>,
    caller: Who,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let after = match sse::last_event_id(&headers) {
        None => 0,
        Some(id) => id
            .parse()
            .map_err(|_| ErrorBody::new(ErrorCode::InvalidParams, format!("{id:?} is no id of an event")))?,
    };
    Ok(sse::respond(state.jobs.follow(&who(caller), &id, after).await?))
}

async fn cancel(
    State(state): State<ControlState>,
    caller: Who,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    state.jobs.cancel(&who(caller), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resume(
    State(state): State<ControlState>,
    caller: Who,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<JobAccepted>), Refusal> {
    let request: ResumeRequest = optional(&valid(body)?)?;
    Ok((StatusCode::ACCEPTED, Json(state.jobs.resume(&who(caller), &id, request).await?)))
}

async fn decide(
    State(state): State<ControlState>,
    caller: Who,
    Path(id): Path<String>,
    decision: Result<Json<JobDecision>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(decision) = valid(decision)?;
    state.jobs.decide(&who(caller), &id, decision).await?;
    Ok(StatusCode::NO_CONTENT)
}
