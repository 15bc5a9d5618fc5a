//! A task on its way through the gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::{Caller, Gateway, GatewayBody};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use orch_api::{ErrorBody, TaskEnd, TaskEvent, TaskMetrics, TaskPlacement, TaskRequest, TaskToken};
use orch_core::ErrorCode;
use orch_runtime::{RequestId, read_body};
use pool_managerd::api::Refusal;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::stream::{EventReader, Said, refusal};
use super::task::Task;

/// So often a stream is told how it goes.
const METRICS_PACE: Duration = Duration::from_secs(1);
/// No refusal is longer.
const LONGEST_REFUSAL: u64 = 64 * 1024;
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// The request that a task is.
pub(super) fn request(
    wanted: &TaskRequest,
    id: Uuid,
    caller: Caller,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let (path, body) = body(wanted)?;
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in asked_in_headers(wanted, id) {
        let bad = |_| {
            Refusal::from(ErrorBody::new(ErrorCode::InvalidParams, format!("{name} cannot be {value:?}")))
        };
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).map_err(bad)?);
    }
    request.extensions_mut().insert(caller);
    Ok(request)
}

fn body(wanted: &TaskRequest) -> Result<(&'static str, Value), Refusal> {
    let (path, mut body) = match (&wanted.prompt, &wanted.messages) {
        (Some(prompt), None) => ("/v1/completions", json!({"prompt": prompt})),
        (None, Some(messages)) => ("/v1/chat/completions", json!({"messages": messages})),
        _ => {
            let message = "a task needs either a prompt or messages";
            return Err(ErrorBody::new(ErrorCode::InvalidParams, message).into());
        }
    };
    body["model"] = json!(wanted.model);
    body["stream"] = json!(true);
    if let Some(most) = wanted.max_tokens {
        body["max_tokens"] = json!(most);
    }
    if let Some(seed) = wanted.seed {
        body["seed"] = json!(seed);
    }
    Ok((path, body))
}

fn asked_in_headers(wanted: &TaskRequest, id: Uuid) -> Vec<(&'static str, String)> {
    let TaskPlacement { pin, prefer, avoid } = wanted.placement.clone().unwrap_or_default();
    let list = |ids: Vec<String>| (!ids.is_empty()).then(|| ids.join(","));
    [
        ("x-request-id", Some(id.to_string())),
        ("x-priority", wanted.priority.map(|priority| priority.label().to_owned())),
        ("x-deadline-ms", wanted.deadline_ms.map(|deadline| deadline.to_string())),
        ("x-session-id", wanted.session_id.clone()),
        ("x-placement-pin", list(pin)),
        ("x-placement-prefer", list(prefer)),
        ("x-placement-avoid", list(avoid)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// Runs a task to its end, which is the engine's, its caller's, or that of the daemon (`goodbye`).
pub(super) async fn run(
    gateway: Gateway,
    task: Arc<Task>,
    request: Request<Full<Bytes>>,
    goodbye: impl Future<Output = ()>,
) {
    let id = RequestId::from_headers(request.headers());
    let last = tokio::select! {
        biased;
        () = task.cancel.cancelled() => {
            TaskEvent::Error(ErrorBody::new(ErrorCode::Cancelled, "the task was cancelled"))
        }
        () = goodbye => {
            let message = "the gateway is stopping; the engine runs on";
            TaskEvent::Error(ErrorBody::new(ErrorCode::WorkerReset, message))
        }
        last = answered(&gateway, &task, request, id) => last,
    };
    task.push(last);
}

async fn answered(gateway: &Gateway, task: &Task, request: Request<Full<Bytes>>, id: RequestId) -> TaskEvent {
    let response = gateway.handle_as(request, id).await;
    if response.status() != StatusCode::OK {
        return TaskEvent::Error(refused(response).await);
    }
    watch(response.into_body(), task).await
}

/// The refusal of an engine or of the gateway, which told when to come back.
async fn refused(response: Response<GatewayBody>) -> ErrorBody {
    let otherwise = match response.status() {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        status if status.is_client_error() => ErrorCode::InvalidParams,
        _ => ErrorCode::WorkerReset,
    };
    let wait = response.headers().get("x-backoff-ms").and_then(|wait| wait.to_str().ok()?.parse().ok());
    let text = read_body(response.into_body(), LONGEST_REFUSAL, REFUSAL_LIMIT).await.unwrap_or_default();
    let told: Value = serde_json::from_slice(&text).unwrap_or_default();
    let body = refusal(&told["error"], otherwise);
    ErrorBody { retry_after_ms: wait.filter(|_| body.retriable), ..body }
}

/// Turns the stream into events; gives the last one.
async fn watch(mut body: GatewayBody, task: &Task) -> TaskEvent {
    let mut reader = EventReader::default();
    let mut progress = Progress::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for said in reader.read(&data) {
            match said {
                Said::Waiting(queue_depth) => {
                    task.push(TaskEvent::Metrics(TaskMetrics { queue_depth, tokens_per_second: 0.0 }));
                }
                Said::Piece { text, counted } => progress.piece(task, text, counted),
                Said::Complete => return TaskEvent::End(progress.end()),
                Said::Failed(error) => return TaskEvent::Error(error),
            }
        }
    }
    TaskEvent::Error(ErrorBody::new(ErrorCode::WorkerReset, "the answer broke off"))
}

/// How a generation goes.
#[derive(Default)]
struct Progress {
    begun: Option<Instant>,
    told: Option<Instant>,
    tokens: u64,
    counted: Option<TaskEnd>,
}

impl Progress {
    fn piece(&mut self, task: &Task, text: String, counted: Option<TaskEnd>) {
        let now = Instant::now();
        let begun = *self.begun.get_or_insert_with(|| {
            task.push(TaskEvent::Started {});
            now
        });
        self.counted = counted.or(self.counted);
        if !text.is_empty() {
            task.push(TaskEvent::Token(TaskToken { t: text, i: self.tokens }));
            self.tokens += 1;
        }
        let told = *self.told.get_or_insert(now);
        if now.duration_since(told) >= METRICS_PACE {
            self.told = Some(now);
            let tokens_per_second = self.tokens as f64 / now.duration_since(begun).as_secs_f64();
            task.push(TaskEvent::Metrics(TaskMetrics { queue_depth: 0, tokens_per_second }));
        }
    }

    /// The engine's own count, or else what was seen of it.
    fn end(&self) -> TaskEnd {
        let seen = || TaskEnd {
            tokens_out: self.tokens,
            decode_ms: self.begun.map_or(0, |begun| begun.elapsed().as_millis() as u64),
        };
        self.counted.unwrap_or_else(seen)
    }
}
