//! The path of every request, in visible steps: identify, read, route, dispatch, stream.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use llm_adapters::{Dialect, EndMarker, Endpoint, EventAligner, MessageStartRepair, Problem, find_endpoint};
use orch_core::ErrorCode;
use orch_runtime::RequestId;
use serde_json::json;
use tokio::time::Instant;

use crate::body::GatewayBody;
use crate::dispatch::{Dispatched, Outgoing, dispatch};
use crate::flight::Flight;
use crate::headers::{clean_request, clean_response};
use crate::incoming::{read_request, requested_model};
use crate::limits::Limits;
use crate::live::{Snapshot, TableHandle};
use crate::metrics::{Metrics, MetricsRegistry};
use crate::stream::{Events, IdleWatch, StreamBody};
use crate::{models, respond, route};

/// Serves the data plane over the current routing table. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    table: TableHandle,
    limits: Limits,
    metrics: Arc<Metrics>,
    degraded: ArcSwap<Vec<String>>,
}

/// What a path asks for.
enum Asked<'p> {
    Health,
    Ready,
    Metrics,
    Models,
    Model(&'p str),
    /// An engine's own path, with the instance where the path names it.
    Engine {
        endpoint: Endpoint,
        path: &'p str,
        instance: Option<&'p str>,
    },
    Unknown,
}

impl Gateway {
    /// A gateway over the tables published to `table`. `registry` may already hold metrics of others: the
    /// gateway adds its own and shows them together.
    pub fn new(table: TableHandle, limits: Limits, registry: MetricsRegistry) -> Self {
        let metrics = Arc::new(Metrics::new(registry, table.clone()));
        Self { inner: Arc::new(Inner { table, limits, metrics, degraded: ArcSwap::default() }) }
    }

    /// The routing table in use: for publishing, draining and counting.
    pub fn table(&self) -> &TableHandle {
        &self.inner.table
    }

    /// What `/ready` admits to while it still says yes.
    pub fn set_degraded(&self, reasons: Vec<String>) {
        self.inner.degraded.store(Arc::new(reasons));
    }

    /// Answers one request, under the id that it carries or a new one.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<GatewayBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let request_id = RequestId::from_headers(request.headers());
        self.handle_as(request, request_id).await
    }

    /// Answers one request under an id that is already decided. Dropping the future, or the body of the
    /// response, ends the engine's work on it.
    pub async fn handle_as<B>(&self, request: Request<B>, request_id: RequestId) -> Response<GatewayBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let asked = asked(&path);
        let mut response = match asked {
            Asked::Engine { endpoint, path, instance } => {
                // Boxed: the server keeps a place of the future's size for each connection.
                Box::pin(self.pass_on(parts, body, endpoint, path, instance, request_id.clone())).await
            }
            own => self.answer(&own, Dialect::of_path(&path), &request_id),
        };
        response.headers_mut().insert(RequestId::HEADER, request_id.header_value());
        response
    }

    /// Paths that the gateway answers itself.
    fn answer(&self, asked: &Asked<'_>, dialect: Dialect, request_id: &RequestId) -> Response<GatewayBody> {
        let answer = match asked {
            Asked::Health => Ok(respond::json(&json!({"status": "ok"}))),
            Asked::Ready => Ok(self.ready()),
            Asked::Metrics => self.inner.metrics.render().map(respond::metrics).map_err(|error| {
                Problem::new(ErrorCode::Internal, format!("the metrics cannot be written: {error}"))
            }),
            Asked::Models => self.snapshot().map(|snapshot| respond::json(&models::list(&snapshot))),
            Asked::Model(name) => self
                .snapshot()
                .and_then(|snapshot| models::find(&snapshot, name).map(|model| respond::json(&model))),
            Asked::Engine { .. } | Asked::Unknown => {
                Err(Problem::new(ErrorCode::NotFound, "there is nothing at this path"))
            }
        };
        answer.unwrap_or_else(|problem| respond::refuse(dialect, &problem, request_id))
    }

    fn ready(&self) -> Response<GatewayBody> {
        let ready = self.inner.table.snapshot().is_some();
        let mut response = respond::json(&json!({"ready": ready, "degraded": **self.inner.degraded.load()}));
        if !ready {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Problem> {
        self.inner.table.snapshot().ok_or_else(|| {
            Problem::new(ErrorCode::PoolUnavailable, "the gateway is starting and knows no instance yet")
        })
    }

    /// The data plane: a request that an engine answers.
    async fn pass_on<B>(
        &self,
        mut parts: Parts,
        body: B,
        endpoint: Endpoint,
        path: &str,
        instance: Option<&str>,
        request_id: RequestId,
    ) -> Response<GatewayBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let takes_slot = endpoint.takes_slot && parts.method == http::Method::POST;
        let mut flight =
            Flight::new(Arc::clone(&self.inner.metrics), request_id, endpoint.dialect, takes_slot);
        match self.dispatch(&mut parts, body, path, instance, &mut flight).await {
            Ok((dispatched, model)) => self.stream(dispatched, flight, path, &model),
            Err(problem) => {
                flight.refused(&problem);
                respond::refuse(endpoint.dialect, &problem, &flight.request_id)
            }
        }
    }

    /// Reads, routes and dispatches. Gives the answer's head and the name it was asked under.
    async fn dispatch<B>(
        &self,
        parts: &mut Parts,
        body: B,
        path: &str,
        instance: Option<&str>,
        flight: &mut Flight,
    ) -> Result<(Dispatched, String), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let body = read_request(&parts.headers, body, &self.inner.limits).await?;
        let ready_at = Instant::now();
        let snapshot = self.snapshot()?;
        let model = match instance {
            Some(instance) => Some(instance.into()),
            None => {
                requested_model(&parts.method, &parts.headers, parts.uri.query().unwrap_or_default(), &body)?
            }
        };
        let route = route::find_route(&snapshot, model.as_deref())?;
        let uri = engine_uri(&parts.uri, path)?;
        let mut headers = std::mem::take(&mut parts.headers);
        clean_request(&mut headers);
        let outgoing = Outgoing { method: parts.method.clone(), uri, headers, body: body.clone(), ready_at };
        let targets = route.targets();
        let dispatched = dispatch(&targets, route.node, &outgoing, flight, &self.inner.limits).await;
        let dispatched = dispatched.map_err(|problem| problem.unwrap_or_else(|| route.unavailable()))?;
        let name = model.map_or_else(|| dispatched.target.replica.key.pool_id.clone(), Cow::into_owned);
        Ok((dispatched, name))
    }

    /// Turns an engine's answer into ours.
    fn stream(
        &self,
        dispatched: Dispatched,
        flight: Flight,
        path: &str,
        model: &str,
    ) -> Response<GatewayBody> {
        let Dispatched { mut head, answer, target, attempt } = dispatched;
        let status = head.status;
        clean_response(&mut head.headers);
        target.headers.name_in(&mut head.headers, attempt);
        let events = self.events(&head.headers, &flight, path, model);
        if events.is_some() {
            head.headers.remove(CONTENT_LENGTH);
        }
        let mut stream = StreamBody::new(answer, status, target, flight, events);
        let body = if stream.end_if_empty() {
            GatewayBody::whole(Bytes::new())
        } else {
            GatewayBody::stream(stream)
        };
        Response::from_parts(head, body)
    }

    /// Whether an answer is a stream of events, and what that one gets.
    fn events(&self, headers: &HeaderMap, flight: &Flight, path: &str, model: &str) -> Option<Events> {
        let media_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let aligner = if media_type.starts_with(b"text/event-stream") {
            EventAligner::events()
        } else if media_type.starts_with(b"application/x-ndjson") {
            EventAligner::lines()
        } else {
            return None;
        };
        let is_message = path == "/v1/messages";
        Some(Events {
            aligner,
            repair: is_message.then(|| MessageStartRepair::new(flight.request_id.as_str(), model)),
            end: if flight.takes_slot() { EndMarker::of_path(path) } else { None },
            idle: IdleWatch::new(self.inner.limits.token_idle),
        })
    }
}

fn asked(path: &str) -> Asked<'_> {
    match path {
        "/health" => return Asked::Health,
        "/ready" => return Asked::Ready,
        "/metrics" => return Asked::Metrics,
        "/v1/models" => return Asked::Models,
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/v1/models/") {
        return Asked::Model(name);
    }
    if let Some(rest) = path.strip_prefix("/upstream/") {
        let (instance, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let anything = Endpoint { dialect: Dialect::of_path(path), takes_slot: false };
        let endpoint = find_endpoint(path).unwrap_or(anything);
        return Asked::Engine { endpoint, path, instance: Some(instance) };
    }
    match find_endpoint(path) {
        Some(endpoint) => Asked::Engine { endpoint, path, instance: None },
        None => Asked::Unknown,
    }
}

/// Path and query as the engine gets them.
fn engine_uri(uri: &Uri, path: &str) -> Result<Uri, Problem> {
    if uri.authority().is_none() && uri.path() == path {
        return Ok(uri.clone());
    }
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().map_err(|_| Problem::new(ErrorCode::InvalidParams, "the path is not valid"))
}
