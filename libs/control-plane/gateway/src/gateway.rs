//! The gateway's front: what a path asks for, and the answers that need no engine.

use std::fmt::Display;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use llm_adapters::{Dialect, Endpoint, Problem, endpoint_paths, find_endpoint};
use orch_core::ErrorCode;
use orch_runtime::RequestId;
use serde_json::json;
use tokio::time::Instant;

use crate::admission::{Forecast, QueueView};
use crate::body::GatewayBody;
use crate::call::Call;
use crate::caller::Caller;
use crate::choose::{Decision, Strategy};
use crate::facts::Class;
use crate::flight::{Arrival, Flight};
use crate::incoming::read_request;
use crate::limits::Limits;
use crate::live::{Snapshot, TableHandle};
use crate::metrics::{Metrics, MetricsRegistry};
use crate::record::{Log, RequestLog};
use crate::routes::Routes;
use crate::{deferred, models, ollama, respond};

/// Serves the data plane over the current routing table. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

/// What all requests have in common.
pub(crate) struct Shared {
    pub(crate) table: TableHandle,
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
    pub(crate) metrics: Arc<Metrics>,
    log: Log,
    degraded: ArcSwap<Vec<String>>,
}

/// Ollama's questions that need no engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnQuestion {
    Tags,
    Loaded,
    Show,
    Version,
}

/// What a path asks for.
enum Asked<'p> {
    Health,
    Ready,
    Metrics,
    Models,
    Model(&'p str),
    /// One of Ollama's questions about models.
    Ollama(OwnQuestion),
    /// An engine's own path, with the instance where the path names it.
    Engine {
        endpoint: Endpoint,
        path: &'p str,
        instance: Option<&'p str>,
    },
    Unknown,
}

impl Shared {
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Problem> {
        self.table.snapshot().ok_or_else(|| {
            Problem::new(ErrorCode::PoolUnavailable, "the gateway is starting and knows no instance yet")
        })
    }

    /// An Ollama client's word for a model as it is known here: some put a tag behind every name.
    pub(crate) fn untagged<'n>(&self, name: &'n str) -> &'n str {
        let known = |snapshot: &Snapshot| snapshot.table.find(name).is_some() || self.routes.knows(name);
        match name.strip_suffix(ollama::DEFAULT_TAG) {
            Some(plain) if !self.snapshot().is_ok_and(|snapshot| known(&snapshot)) => plain,
            _ => name,
        }
    }
}

impl Gateway {
    /// A gateway over the tables published to `table` and the `routes` that a user has written down. `registry` may already hold metrics of others: the
    /// gateway adds its own and shows them together. Every request that is over is told to `log`.
    pub fn new(
        table: TableHandle,
        limits: Limits,
        routes: Routes,
        registry: MetricsRegistry,
        log: Option<Arc<dyn RequestLog>>,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(registry, table.clone()));
        Self {
            shared: Arc::new(Shared { table, limits, routes, metrics, log, degraded: ArcSwap::default() }),
        }
    }

    /// The routing table in use: for publishing, draining and counting.
    pub fn table(&self) -> &TableHandle {
        &self.shared.table
    }

    /// The queues in which requests wait now.
    pub fn queues(&self) -> Vec<QueueView> {
        self.shared.table.admission().queues(Instant::now())
    }

    /// What a request of this caller for this model would find now; nothing where the model cannot be had.
    pub fn forecast(&self, model: Option<&str>, class: Class, caller: &Caller) -> Option<Forecast> {
        let snapshot = self.shared.table.snapshot()?;
        self.shared.table.admission().forecast(&snapshot, model, class, &caller.id)
    }

    /// What `/ready` admits to while it still says yes.
    pub fn set_degraded(&self, reasons: Vec<String>) {
        self.shared.degraded.store(Arc::new(reasons));
    }

    /// Decides among replicas in this way from now on.
    pub fn set_strategy(&self, strategy: Strategy) {
        self.shared.table.chooser().set_strategy(strategy);
    }

    /// Why the latest requests went where they went, the newest first.
    pub fn decisions(&self) -> Vec<Decision> {
        self.shared.table.chooser().decisions().latest()
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
        let path = request.uri().path().to_owned();
        let asked = asked(&path);
        let mut response = match asked {
            Asked::Engine { endpoint, path, instance } => {
                // Boxed: the server keeps a place of the future's size for each connection.
                let call = self.call(request, endpoint, path, instance, request_id.clone());
                match Box::pin(call).await {
                    Ok(call) => deferred::answer(call).await,
                    Err(problem) => respond::refuse(endpoint.dialect, &problem, &request_id),
                }
            }
            Asked::Ollama(question) => Box::pin(self.answer_ollama(request, question, &request_id)).await,
            own if !matches!(own, Asked::Unknown) && !is_read(request.method()) => {
                let message = format!("{path} is there to be read: use GET");
                let problem = Problem::new(ErrorCode::InvalidParams, message)
                    .status(StatusCode::METHOD_NOT_ALLOWED.as_u16());
                respond::refuse(Dialect::of_path(&path), &problem, &request_id)
            }
            own => {
                let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
                self.answer(&own, &caller, Dialect::of_path(&path), &request_id)
            }
        };
        response.headers_mut().insert(RequestId::HEADER, request_id.header_value());
        response
    }

    /// Paths that the gateway answers itself.
    fn answer(
        &self,
        asked: &Asked<'_>,
        caller: &Caller,
        dialect: Dialect,
        request_id: &RequestId,
    ) -> Response<GatewayBody> {
        let answer = match asked {
            Asked::Health => Ok(respond::json(&json!({"status": "ok"}))),
            Asked::Ready => Ok(self.ready()),
            Asked::Metrics => self.shared.metrics.render().map(respond::metrics).map_err(|error| {
                Problem::new(ErrorCode::Internal, format!("the metrics cannot be written: {error}"))
            }),
            Asked::Models => self
                .shared
                .snapshot()
                .map(|snapshot| respond::json(&models::list(&snapshot, &self.shared.routes, caller))),
            Asked::Model(name) => self.shared.snapshot().and_then(|snapshot| {
                models::find(&snapshot, &self.shared.routes, caller, name).map(|model| respond::json(&model))
            }),
            Asked::Engine { .. } | Asked::Ollama(_) | Asked::Unknown => {
                Err(Problem::new(ErrorCode::NotFound, "there is nothing at this path"))
            }
        };
        answer.unwrap_or_else(|problem| respond::refuse(dialect, &problem, request_id))
    }

    /// Ollama's questions about models.
    async fn answer_ollama<B>(
        &self,
        request: Request<B>,
        question: OwnQuestion,
        request_id: &RequestId,
    ) -> Response<GatewayBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        let answer = async {
            if question == OwnQuestion::Version {
                return Ok(ollama::version());
            }
            let (snapshot, routes) = (self.shared.snapshot()?, &self.shared.routes);
            match question {
                OwnQuestion::Tags => Ok(ollama::tags(&snapshot, routes, &caller)),
                OwnQuestion::Loaded => Ok(ollama::loaded(&snapshot, routes, &caller)),
                OwnQuestion::Show | OwnQuestion::Version => {
                    let body = read_request(&parts.headers, body, &self.shared.limits).await?;
                    let name = ollama::name_in(&body)?;
                    ollama::show(&snapshot, routes, &caller, self.shared.untagged(&name))
                }
            }
        };
        match answer.await {
            Ok(value) => respond::json(&value),
            Err(problem) => respond::refuse(Dialect::Ollama, &problem, request_id),
        }
    }

    fn ready(&self) -> Response<GatewayBody> {
        let ready = self.shared.table.snapshot().is_some();
        let mut response = respond::json(&json!({"ready": ready, "degraded": **self.shared.degraded.load()}));
        if !ready {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    /// The data plane: a request that an engine answers, once it is read.
    async fn call<B>(
        &self,
        request: Request<B>,
        endpoint: Endpoint,
        path: &str,
        instance: Option<&str>,
        request_id: RequestId,
    ) -> Result<Call, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let (mut parts, body) = request.into_parts();
        let mut flight = self.take_off(Arrival {
            request_id,
            dialect: endpoint.dialect,
            endpoint: path.to_owned(),
            takes_slot: endpoint.takes_slot && parts.method == http::Method::POST,
            caller: parts.extensions.remove::<Caller>().unwrap_or_default(),
        });
        let read = read_request(&parts.headers, body, &self.shared.limits).await;
        let body = read.inspect_err(|problem| flight.refused(problem))?;
        let (path, instance) = (path.to_owned(), instance.map(str::to_owned));
        let (shared, progress) = (Arc::clone(&self.shared), Arc::default());
        Ok(Call { shared, parts, body, path, instance, plan: None, flight, progress })
    }

    fn take_off(&self, arrival: Arrival) -> Flight {
        Flight::new(Arc::clone(&self.shared.metrics), self.shared.log.clone(), arrival)
    }
}

/// Paths that the gateway answers, and those it passes on; `*` stands for any rest.
pub fn data_paths() -> impl Iterator<Item = &'static str> {
    ["/health", "/ready", "/metrics", "/api/tags", "/api/ps", "/api/show", "/api/version", "/upstream/*"]
        .into_iter()
        .chain(endpoint_paths())
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn asked(path: &str) -> Asked<'_> {
    match path {
        "/health" => return Asked::Health,
        "/ready" => return Asked::Ready,
        "/metrics" => return Asked::Metrics,
        "/v1/models" => return Asked::Models,
        "/api/tags" => return Asked::Ollama(OwnQuestion::Tags),
        "/api/ps" => return Asked::Ollama(OwnQuestion::Loaded),
        "/api/show" => return Asked::Ollama(OwnQuestion::Show),
        "/api/version" => return Asked::Ollama(OwnQuestion::Version),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_path_leads_somewhere() {
        for path in data_paths() {
            assert!(!matches!(asked(&path.replace('*', "a/b")), Asked::Unknown), "{path}");
        }
    }
}
