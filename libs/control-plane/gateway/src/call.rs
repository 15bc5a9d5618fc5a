//! The path of a request to an engine, in visible steps: read, route, dispatch, stream.
//!
//! A call owns all that it needs, so that whoever drives it may come and go with the client.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, Uri};
use llm_adapters::{AnswerPlan, Dialect, EndMarker, EventAligner, MessageStartRepair, Problem};
use orch_core::ErrorCode;
use tokio::time::Instant;

use crate::admission::Progress;
use crate::body::GatewayBody;
use crate::dispatch::{Dispatched, Outgoing, dispatch, dispatch_remote};
use crate::facts::Facts;
use crate::flight::Flight;
use crate::gateway::Shared;
use crate::headers::clean_request;
use crate::quota::Estimate;
use crate::rewrite::Rewrite;
use crate::route::find_route;
use crate::routes::{Chain, Destination, may_try_next};
use crate::stream::{Events, IdleWatch, StreamBody};

/// Engines' paths that answer `stream: true` with server-sent events.
const EVENT_PATHS: [&str; 9] = [
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/completions",
    "/completion",
    "/v1/messages",
    "/v1/responses",
    "/responses",
    "/infill",
];

/// One request to an engine, whole, on its way to an answer.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// The engine's path.
    pub(crate) path: String,
    /// The instance, where the client's path names it.
    pub(crate) instance: Option<String>,
    /// How the answer is translated, where the place asked speaks another dialect than the caller.
    pub(crate) plan: Option<AnswerPlan>,
    pub(crate) flight: Flight,
    pub(crate) progress: Arc<Progress>,
}

impl Call {
    /// The answer, be it the engine's or a refusal.
    pub(crate) async fn answer(mut self) -> Result<Response<GatewayBody>, Problem> {
        match self.dispatch().await {
            Ok((dispatched, model)) => Ok(match self.plan {
                None => self.stream(dispatched, &model),
                Some(plan) => self.answer_translated(plan, dispatched, &model).await,
            }),
            Err(problem) => {
                self.flight.refused(&problem);
                Err(problem)
            }
        }
    }

    /// Whether an answer to a stream of this call is a stream of server-sent events, in which comments are allowed.
    fn streams_events(&self) -> bool {
        self.flight.takes_slot()
            && self.flight.dialect() != Dialect::Ollama
            && EVENT_PATHS.contains(&self.path.as_str())
    }

    /// Reads, routes and dispatches. Gives the answer's head and the name it was asked under.
    async fn dispatch(&mut self) -> Result<(Dispatched, String), Problem> {
        let ready_at = Instant::now();
        let mut facts = Facts::read(&self.parts, &self.body, self.instance.as_deref(), self.flight.arrived)?;
        facts.class = self.flight.arrival.caller.class_of(facts.class);
        if self.flight.dialect() == Dialect::Ollama {
            let untagged = |name: String| self.shared.untagged(&name).to_owned();
            facts.model = facts.model.map(untagged);
        }
        self.flight.asks_for(&facts, &self.body);
        self.flight.deadline = facts.deadline;
        facts.request_id = Some(self.flight.request_id().clone());
        if facts.streams && self.streams_events() {
            self.progress.allow_deferring();
        }
        let uri = engine_uri(&self.parts.uri, &self.path)?;
        let mut headers = std::mem::take(&mut self.parts.headers);
        clean_request(&mut headers);
        let method = self.parts.method.clone();
        let mut outgoing = Outgoing {
            method,
            uri,
            headers,
            body: self.body.clone(),
            as_is: self.instance.is_some(),
            ready_at,
        };
        let shared = Arc::clone(&self.shared);
        let Chain { destinations, rewrite } = match &self.instance {
            // Who names the instance in the path goes around all routes.
            Some(instance) => Chain::local(Some(instance)),
            None => shared.routes.chain(facts.model.as_deref()),
        };
        self.check_caller(&facts, &destinations)?;
        let places = destinations.len();
        for (number, place) in destinations.into_iter().enumerate() {
            let found = self.try_place(place, rewrite, &mut facts, &mut outgoing).await;
            let problem = match found {
                Ok(dispatched) if number + 1 == places || !is_turned_away(dispatched.head.status) => {
                    let name = facts.model.unwrap_or_else(|| dispatched.target.replica.key.pool_id.clone());
                    return Ok((dispatched, name));
                }
                Ok(dispatched) => {
                    // Its slot is free before the next place is asked for one: that may be the same.
                    self.flight.turned_away();
                    format!("it answered {}", dispatched.head.status)
                }
                Err(problem) if number + 1 == places || !may_try_next(problem.code) => return Err(problem),
                Err(problem) => problem.message,
            };
            tracing::info!(
                request_id = %self.flight.request_id(), model = facts.model, "the route's next place is tried: {problem}"
            );
        }
        Err(Problem::new(ErrorCode::PoolUnavailable, "the route of this model leads nowhere"))
    }

    /// Asks one place of a chain.
    async fn try_place(
        &mut self,
        place: Destination,
        rewrite: Option<&Rewrite>,
        facts: &mut Facts,
        outgoing: &mut Outgoing,
    ) -> Result<Dispatched, Problem> {
        let rewritten = |body: &Bytes, model: Option<&str>| match (rewrite, model) {
            (None, None) => Ok(body.clone()),
            (rewrite, model) => rewrite.unwrap_or(&Rewrite::default()).apply(body, model),
        };
        let shared = Arc::clone(&self.shared);
        match place {
            Destination::Local(model) => {
                self.tell(None, outgoing, |body| rewritten(body, None))?;
                let mut renamed = (model != facts.model).then(|| Facts { model, ..facts.clone() });
                let facts = renamed.as_mut().unwrap_or(facts);
                self.place(facts, &outgoing.body)?;
                dispatch(&shared, facts, outgoing, &mut self.flight, &self.progress).await
            }
            Destination::Remote { target, model } => {
                let kind = target.provider.as_ref().map(|provider| provider.settings.kind);
                self.tell(kind, outgoing, |body| rewritten(body, Some(&model)))?;
                dispatch_remote(&shared, &target, outgoing, &mut self.flight).await
            }
        }
    }

    /// Finds out what of the request matters for the choice of a replica.
    fn place(&self, facts: &mut Facts, body: &[u8]) -> Result<(), Problem> {
        let snapshot = self.shared.snapshot()?;
        let model = facts.model.clone();
        find_route(&snapshot, model.as_deref())?.place(facts, &self.path, body)
    }

    /// Holds the request to what its key may do and use.
    fn check_caller(&mut self, facts: &Facts, places: &[Destination]) -> Result<(), Problem> {
        let caller = &self.flight.arrival.caller;
        let snapshot = self.shared.snapshot()?;
        if let [Destination::Local(model)] = places {
            // What nobody knows is told first.
            find_route(&snapshot, model.as_deref())?;
        }
        let asked = facts.model.as_deref().unwrap_or_default();
        if !places.iter().all(|place| place.is_open_to(caller, asked, &snapshot)) {
            let message = "this key may not ask for this model; GET /v1/models lists those it may ask for";
            return Err(Problem::new(ErrorCode::Forbidden, message).param("model"));
        }
        let Some(quota) = &caller.quota else { return Ok(()) };
        let context = || places.iter().filter_map(|place| place.context(&snapshot)).max();
        let estimate = if self.flight.takes_slot() {
            Estimate::of(self.body.len(), facts.max_tokens, context())
        } else {
            Estimate::default()
        };
        self.flight.permit = Some(quota.enter(estimate)?);
        Ok(())
    }

    /// Turns an engine's answer into ours.
    fn stream(self, dispatched: Dispatched, model: &str) -> Response<GatewayBody> {
        let Dispatched { mut head, answer, target, attempt } = dispatched;
        let status = head.status;
        target.clean_response(&mut head.headers);
        target.headers.name_in(&mut head.headers, attempt, self.flight.waited());
        self.flight.arrival.caller.tell_limits(&mut head.headers);
        let events = self.events(&head.headers, model);
        if events.is_some() {
            head.headers.remove(CONTENT_LENGTH);
        }
        let mut stream = StreamBody::new(answer, status, target, self.flight, events);
        let body = if stream.end_if_empty() {
            GatewayBody::whole(Bytes::new())
        } else {
            GatewayBody::stream(stream)
        };
        Response::from_parts(head, body)
    }

    /// What a stream gets that is translated. The translator itself sees to whole events and a proper end.
    pub(crate) fn translated_events(&self) -> Events {
        let idle = IdleWatch::new(self.shared.limits.token_idle);
        Events { aligner: EventAligner::lines(), repair: None, end: None, idle }
    }

    /// Whether an answer is a stream of events, and what that one gets.
    fn events(&self, headers: &HeaderMap, model: &str) -> Option<Events> {
        let media_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let aligner = if media_type.starts_with(b"text/event-stream") {
            EventAligner::events()
        } else if media_type.starts_with(b"application/x-ndjson") {
            EventAligner::lines()
        } else {
            return None;
        };
        let is_message = self.path == "/v1/messages";
        let id = self.flight.request_id().as_str();
        Some(Events {
            aligner,
            repair: is_message.then(|| MessageStartRepair::new(id, model)),
            end: if self.flight.takes_slot() { EndMarker::of_path(&self.path) } else { None },
            idle: IdleWatch::new(self.shared.limits.token_idle),
        })
    }
}

/// Whether somebody else may well take what was answered with this.
fn is_turned_away(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Path and query as the engine gets them.
pub(crate) fn engine_uri(uri: &Uri, path: &str) -> Result<Uri, Problem> {
    if uri.authority().is_none() && uri.path() == path {
        return Ok(uri.clone());
    }
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().map_err(|_| Problem::new(ErrorCode::InvalidParams, "the path is not valid"))
}
