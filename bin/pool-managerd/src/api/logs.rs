//! `/v2/instances/{name}/logs`: what engines write, read and followed.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::Event as SentEvent;
use axum::response::{IntoResponse, Response};
use engine_process::{Follower, LogFiles, LogPosition, Stream, StreamSelection};
use orch_api::LogLine;
use orch_core::{ExitCode, Failure, HomeLayout, InstanceName, ReplicaId, UnixMillis};
use serde::Deserialize;

use super::ApiState;
use super::answers::{Refusal, valid};
use super::events::is_wanted;
use super::instances::find;
use super::sse::{self, Source};

const USUAL_TAIL: usize = 100;
const LONGEST_TAIL: usize = 10_000;
/// While followed the files are looked at so often.
const PACE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    tail: Option<usize>,
    stream: Option<String>,
    /// RFC 3339.
    since: Option<String>,
    replica: Option<u16>,
    follow: Option<String>,
}

/// Which part of which files.
#[derive(Clone)]
struct Wanted {
    files: LogFiles,
    selection: StreamSelection,
    tail: usize,
    since: Option<UnixMillis>,
}

pub(super) async fn show(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(query) = valid(query)?;
    let follow = is_wanted("follow", query.follow.as_deref())?;
    let files = files(&state, &name, ReplicaId(query.replica.unwrap_or(0))).await?;
    let wanted = query.of(files)?;
    if !follow {
        let lines = blocking(move || {
            engine_process::tail(&wanted.files, wanted.selection, wanted.tail, wanted.since)
        });
        let lines: Vec<LogLine> = lines.await?.into_iter().map(told).collect();
        return Ok(Json(lines).into_response());
    }
    let (lines, follower) = begin(wanted, sse::last_event_id(&headers)).await?;
    let pending: VecDeque<LogLine> = lines.into_iter().map(told).collect();
    Ok(sse::respond(Follow { state, follower: Some(follower), pending }))
}

/// The first lines and whoever goes on behind them: behind the place of a client that comes back, or else behind the
/// tail.
async fn begin(
    wanted: Wanted,
    place: Option<&str>,
) -> Result<(Vec<engine_process::LogLine>, Follower), Failure> {
    let Wanted { files, selection, tail, since } = wanted;
    let Some(id) = place else {
        return blocking(move || engine_process::tail_then_follow(&files, selection, tail, since)).await;
    };
    let place: LogPosition =
        id.parse().map_err(|error| Failure::new(ExitCode::Usage, format!("{id:?} {error}")))?;
    let follower = blocking(move || Follower::resume(&files, selection, &place)).await?;
    Ok((Vec::new(), follower))
}

impl LogQuery {
    fn of(self, files: LogFiles) -> Result<Wanted, Failure> {
        let bad =
            |field: &str, value: &str| Failure::new(ExitCode::Usage, format!("{field} cannot be {value:?}"));
        let selection = match self.stream.as_deref() {
            None | Some("both") => StreamSelection::Both,
            Some("stdout") => StreamSelection::Stdout,
            Some("stderr") => StreamSelection::Stderr,
            Some(other) => return Err(bad("stream", other)),
        };
        let since = self.since.map(|it| UnixMillis::from_rfc3339(&it).ok_or_else(|| bad("since", &it)));
        let tail = self.tail.unwrap_or(USUAL_TAIL).min(LONGEST_TAIL);
        Ok(Wanted { files, selection, tail, since: since.transpose()? })
    }
}

/// Where an engine's logs lie; the usual files where the config is gone but something was written.
async fn files(state: &ApiState, name: &str, replica: ReplicaId) -> Result<LogFiles, Failure> {
    let home: &HomeLayout = &state.node.home;
    match find(state, name).await {
        Ok(instance) => {
            let config = &instance.config;
            let path = |template: &str| instance_config::log_path(template, config, home, replica);
            Ok(LogFiles { stdout: path(&config.logs.stdout), stderr: path(&config.logs.stderr) })
        }
        Err(failure) => {
            let Ok(name) = InstanceName::new(name) else { return Err(failure) };
            let folder = home.instance_logs(&name);
            let path = |file: &str| engine_process::replica_log_path(&folder.join(file), replica);
            if folder.is_dir() {
                Ok(LogFiles { stdout: path("stdout.log"), stderr: path("stderr.log") })
            } else {
                Err(failure)
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let failed = |why: String| Failure::new(ExitCode::General, format!("the logs cannot be read: {why}"));
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?;
    done.map_err(|error| failed(error.to_string()))
}

fn told(line: engine_process::LogLine) -> LogLine {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    LogLine { ts: line.at.map(UnixMillis::to_rfc3339), stream: stream.to_owned(), text: line.text }
}

/// Lines as they come. The last one of each look carries the place behind it: who comes back with it misses nothing.
struct Follow {
    state: ApiState,
    /// Away only while a look is under way.
    follower: Option<Follower>,
    pending: VecDeque<LogLine>,
}

impl Source for Follow {
    async fn next(&mut self) -> Option<SentEvent> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                let sent = SentEvent::default().event("log").json_data(&line).ok()?;
                let place = self.follower.as_ref().filter(|_| self.pending.is_empty());
                return Some(match place {
                    Some(follower) => sent.id(follower.position().to_string()),
                    None => sent,
                });
            }
            let mut follower = self.follower.take()?;
            let looked = blocking(move || follower.poll().map(|lines| (lines, follower))).await;
            let (lines, follower) = looked
                .inspect_err(|failure| tracing::warn!(%failure, "a log is not followed any longer"))
                .ok()?;
            self.pending = lines.into_iter().map(told).collect();
            self.follower = Some(follower);
            if self.pending.is_empty() {
                tokio::select! {
                    () = self.state.ending.cancelled() => return None,
                    () = tokio::time::sleep(PACE) => {}
                }
            }
        }
    }
}
