//! `/v2/requests` and `/v2/usage`: what was asked, how it ended, and what it took.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::stream::unfold;
use orch_api::{CapturedRequest, RequestFilter, RequestView, UsageView, paths};
use orch_core::{ExitCode, Failure};
use orch_runtime::CancellationToken;
use pool_managerd::api::answers::{Refusal, valid};
use tokio::sync::watch;

use super::ControlState;
use crate::request_log::{LogReader, UsageFilter};

/// A comment keeps the line of a quiet stream.
const QUIET: Duration = Duration::from_secs(15);
/// So many entries are sent on before looking again.
const AT_A_TIME: usize = 500;

pub(super) fn router() -> Router<ControlState> {
    Router::new()
        .route(paths::REQUESTS, get(list))
        .route(paths::REQUEST, get(show))
        .route(paths::USAGE, get(usage))
}

async fn list(
    State(state): State<ControlState>,
    headers: HeaderMap,
    filter: Result<Query<RequestFilter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(mut filter) = valid(filter)?;
    if filter.follow != Some(true) {
        return Ok(Json(away(move || state.log.requests(&filter)).await?).into_response());
    }
    // Whoever was cut off says what came last.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let after = match last.or(filter.after) {
        Some(after) => after,
        None => newest(state.log.clone()).await?,
    };
    filter.limit = Some(AT_A_TIME);
    filter.after = Some(after);
    // A filter that cannot be meant is refused now and not in the stream.
    let (log, checked) = (state.log.clone(), RequestFilter { limit: Some(0), ..filter.clone() });
    away(move || log.requests(&checked)).await?;
    let stream = Follower {
        log: state.log,
        filter,
        after,
        written: state.log_written,
        stopping: state.stopping,
        waiting: Vec::new(),
    };
    Ok(Sse::new(stream.events()).keep_alive(KeepAlive::new().interval(QUIET)).into_response())
}

async fn show(
    State(state): State<ControlState>,
    Path(id): Path<String>,
) -> Result<Json<CapturedRequest>, Refusal> {
    Ok(Json(away(move || state.log.request(&id)).await?))
}

async fn usage(
    State(state): State<ControlState>,
    filter: Result<Query<UsageFilter>, QueryRejection>,
) -> Result<Json<Vec<UsageView>>, Refusal> {
    let Query(filter) = valid(filter)?;
    Ok(Json(away(move || state.log.usage(&filter)).await?))
}

async fn newest(log: LogReader) -> Result<i64, Refusal> {
    let filter = RequestFilter { limit: Some(1), ..RequestFilter::default() };
    let rows = away(move || log.requests(&filter)).await?;
    Ok(rows.first().map_or(0, |row| row.seq))
}

/// Sends on what is written, in its order.
struct Follower {
    log: LogReader,
    filter: RequestFilter,
    after: i64,
    written: watch::Receiver<u64>,
    stopping: CancellationToken,
    /// Read and not yet sent, the next one last.
    waiting: Vec<RequestView>,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, async |mut follower| {
            let view = follower.next().await?;
            let text = serde_json::to_string(&view).ok()?;
            let event = Event::default().event("request").id(view.seq.to_string()).data(text);
            Some((Ok(event), follower))
        })
    }

    /// Ends when the daemon ends, or the log cannot be read.
    async fn next(&mut self) -> Option<RequestView> {
        while self.waiting.is_empty() {
            self.written.borrow_and_update();
            let filter = RequestFilter { after: Some(self.after), ..self.filter.clone() };
            let log = self.log.clone();
            self.waiting = away(move || log.requests(&filter)).await.ok()?;
            self.waiting.reverse();
            if self.waiting.is_empty() {
                tokio::select! {
                    grown = self.written.changed() => grown.ok()?,
                    () = self.stopping.cancelled() => return None,
                }
            }
        }
        let view = self.waiting.pop()?;
        self.after = view.seq;
        Some(view)
    }
}

/// The log is a file: it is read where waiting holds nobody up.
async fn away<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Refusal> {
    let cut = |error| Failure::new(ExitCode::General, format!("the request log was not reached: {error}"));
    Ok(tokio::task::spawn_blocking(work).await.map_err(cut)??)
}
