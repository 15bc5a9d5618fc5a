//! One request and its answer.

use std::sync::Arc;
use std::time::Duration;

use llm_adapters::{AnswerFault, Event};
use memchr::memmem;
use orch_core::UnixMillis;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};
use serde_json::Value;
use tokio::time::Instant;
use workflow::{Answer, AnswerPiece, CallFailure};
use workflow_spec::FailureKind;

use crate::access::{Access, Token};
use crate::breaker::Passage;
use crate::clients::Clients;
use crate::collect::Collector;
use crate::dialect::Plan;
use crate::failures::{Told, kind_of};
use crate::framing::{Frames, Framing};
use crate::hold::Holds;
use crate::setting::ProviderKind;
use crate::waits;
use crate::wording::{not_reached, quoted, shown};

/// All bytes of an answer: its text is a small part of them.
const STREAM_LIMIT: usize = 512 * 1024 * 1024;
/// An answer that is not streamed, or a list.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// A refusal says little.
const REFUSAL_LIMIT: usize = 64 * 1024;
/// How long the end of a connection's answer may take after the answer's own end.
const TAIL_LIMIT: Duration = Duration::from_millis(100);
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// To whom one request goes.
pub(crate) struct Exchange<'a> {
    /// As messages name it: `provider x`.
    pub(crate) who: &'a str,
    pub(crate) kind: ProviderKind,
    pub(crate) access: &'a Access,
    pub(crate) url: Url,
    pub(crate) clients: &'a Clients,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: CallFailure,
    /// The answer's status, where there was one.
    pub(crate) status: Option<u16>,
    /// The code in the refusal.
    pub(crate) told: Box<Told>,
}

impl From<CallFailure> for Failed {
    fn from(failure: CallFailure) -> Self {
        Self { failure, status: None, told: Box::default() }
    }
}

impl Exchange<'_> {
    /// Asks and reads the answer to its end.
    pub(crate) async fn ask(
        &self,
        plan: Plan,
        model: &str,
        holds: &Holds,
        passage: &mut Passage,
        pieces: Arc<dyn AnswerPiece>,
    ) -> Result<Answer, Failed> {
        let began = Instant::now();
        let client = self.clients.client(&self.url).map_err(|error| self.not_reached(&error))?;
        let request = client.post(self.url.clone()).headers(self.headers()?);
        let body = Value::Object(plan.body).to_string();
        let sent = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let response = sent.map_err(|error| self.not_reached(&error))?;
        passage.heard();
        if let Some(wait) = waits::hold(response.headers(), UnixMillis::now()) {
            holds.hold(model, wait);
        }
        if !response.status().is_success() {
            let failed = self.refused(response).await;
            if let (FailureKind::RateLimit, Some(wait)) = (failed.failure.kind, failed.failure.retry_after) {
                // The others would only hear the same.
                holds.hold(model, wait.min(waits::LONGEST_HOLD));
            }
            return Err(failed);
        }
        passage.heard_good();
        let collector = Collector::new(pieces, began, plan.answer_tool);
        let mut reading = Reading {
            exchange: self,
            frames: Frames::new(plan.framing),
            reader: plan.reader,
            collector,
            length: 0,
            has_events: false,
        };
        let read = if is_whole(&response, plan.framing) {
            reading.whole(response).await
        } else {
            reading.stream(response).await
        };
        match read {
            Ok(()) => Ok(reading.collector.answer()),
            Err(mut failed) => {
                failed.failure.usage = reading.collector.usage();
                Err(failed)
            }
        }
    }

    /// A document of the provider's, such as its list of models.
    pub(crate) async fn document(&self) -> Result<Value, Failed> {
        let client = self.clients.client(&self.url).map_err(|error| self.not_reached(&error))?;
        let sent = client.get(self.url.clone()).headers(self.headers()?).send().await;
        let response = sent.map_err(|error| self.not_reached(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let body = self.body(response, BODY_LIMIT).await?;
        serde_json::from_slice(&body).map_err(|_| self.no_answer("it is not JSON"))
    }

    fn headers(&self) -> Result<HeaderMap, CallFailure> {
        let mut headers = HeaderMap::new();
        let anthropic = self.kind == ProviderKind::Anthropic;
        if anthropic {
            headers.insert("anthropic-version", ANTHROPIC_VERSION);
        }
        let Some(token) = &self.access.token else { return Ok(headers) };
        let text = if anthropic { token.secret().to_owned() } else { format!("Bearer {}", token.secret()) };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            let message = format!("the key of {} holds characters that cannot be sent", self.who);
            CallFailure::new(FailureKind::Auth, message)
        })?;
        value.set_sensitive(true);
        let name = if anthropic { API_KEY } else { AUTHORIZATION };
        headers.insert(name, value);
        Ok(headers)
    }

    /// What a refusal says, and of which kind it is.
    async fn refused(&self, response: Response) -> Failed {
        let status = response.status().as_u16();
        let retry_after = waits::retry_after(response.headers(), UnixMillis::now());
        // A refusal without a readable reason is one all the same.
        let body = self.body(response, REFUSAL_LIMIT).await.unwrap_or_default();
        let parsed: Option<Value> = serde_json::from_slice(&body).ok();
        let told = parsed.as_ref().and_then(Told::read).unwrap_or_default();
        let kind = kind_of(Some(status), &told);
        let mut message = format!("{} at {} answered {status}", self.who, shown(&self.url));
        if !told.message.is_empty() {
            message.push_str(": ");
            message.push_str(&quoted(&told.message, self.token()));
        }
        let mut failure = CallFailure::new(kind, message);
        if matches!(kind, FailureKind::RateLimit | FailureKind::Overloaded | FailureKind::Timeout) {
            failure.retry_after = retry_after;
        }
        Failed { failure, status: Some(status), told: Box::new(told) }
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Failed> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.not_reached(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(self.fault(&AnswerFault::TooLong));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn token(&self) -> Option<&Token> {
        self.access.token.as_ref()
    }

    fn not_reached(&self, error: &reqwest::Error) -> Failed {
        not_reached(self.who, &self.url, error).into()
    }

    fn no_answer(&self, why: &str) -> Failed {
        let message = format!("{} at {} sent something that is no answer: {why}", self.who, shown(&self.url));
        CallFailure::new(FailureKind::Overloaded, message).into()
    }

    /// An answer that began and did not come to its end.
    fn fault(&self, fault: &AnswerFault) -> Failed {
        let (who, place) = (self.who, shown(&self.url));
        let (kind, message) = match fault {
            AnswerFault::Malformed(why) => return self.no_answer(why),
            AnswerFault::TooLong => {
                (FailureKind::Validation, format!("{who} at {place} sent a longer answer than is taken"))
            }
            AnswerFault::Incomplete => {
                (FailureKind::Connect, format!("{who} at {place} ended its answer before it was whole"))
            }
            AnswerFault::BrokenOff(said) => {
                let said = quoted(said, self.token());
                (FailureKind::Overloaded, format!("{who} at {place} broke off: {said}"))
            }
        };
        CallFailure::new(kind, message).into()
    }

    /// An error within a stream.
    fn broken_off(&self, told: Told) -> Failed {
        let kind = kind_of(None, &told);
        let said = quoted(&told.message, self.token());
        let message = format!("{} at {} broke off: {said}", self.who, shown(&self.url));
        Failed { failure: CallFailure::new(kind, message), status: None, told: Box::new(told) }
    }
}

/// Whether a server did not stream although it was asked to. Lines of JSON can be read as they come in any case.
fn is_whole(response: &Response, framing: Framing) -> bool {
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    framing == Framing::ServerSentEvents && media_type.is_some_and(|it| it.starts_with("application/json"))
}

/// An answer while it is read.
struct Reading<'a> {
    exchange: &'a Exchange<'a>,
    frames: Frames,
    reader: Box<dyn llm_adapters::AnswerReader>,
    collector: Collector,
    /// Bytes so far.
    length: usize,
    has_events: bool,
}

impl Reading<'_> {
    async fn stream(&mut self, mut response: Response) -> Result<(), Failed> {
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.end(),
                // What is whole is whole, however the connection ended.
                Err(_) if self.reader.is_complete() => return Ok(()),
                Err(error) => return Err(self.exchange.not_reached(&error)),
            };
            self.length += chunk.len();
            if self.length > STREAM_LIMIT {
                return Err(self.exchange.fault(&AnswerFault::TooLong));
            }
            self.frames.push(&chunk);
            if self.take_events()? {
                // The connection can be used again only when it has been read to its end.
                let _ = tokio::time::timeout(TAIL_LIMIT, response.chunk()).await;
                return Ok(());
            }
        }
    }

    /// `true` at the answer's own end.
    fn take_events(&mut self) -> Result<bool, Failed> {
        loop {
            let event = self.frames.next().map_err(|_| self.exchange.fault(&AnswerFault::TooLong))?;
            let Some(event) = event else { return Ok(false) };
            if self.event(event)? {
                return Ok(true);
            }
        }
    }

    fn end(&mut self) -> Result<(), Failed> {
        if let Some(event) = self.frames.rest() {
            self.event(event)?;
        }
        if self.reader.is_complete() {
            Ok(())
        } else if self.length > 0 && !self.has_events {
            Err(self.exchange.no_answer("it holds no event"))
        } else {
            Err(self.exchange.fault(&AnswerFault::Incomplete))
        }
    }

    fn event(&mut self, event: Event) -> Result<bool, Failed> {
        self.has_events = true;
        if memmem::find(&event.data, b"error").is_some()
            && let Ok(body) = serde_json::from_slice(&event.data)
            && let Some(told) = Told::read(&body)
        {
            return Err(self.exchange.broken_off(told));
        }
        match self.reader.event(event).map_err(|fault| self.exchange.fault(&fault))? {
            None => Ok(true),
            Some(delta) => {
                self.collector.add(delta).map_err(|fault| self.exchange.fault(&fault))?;
                Ok(false)
            }
        }
    }

    async fn whole(&mut self, response: Response) -> Result<(), Failed> {
        let body = self.exchange.body(response, BODY_LIMIT).await?;
        let body: Value =
            serde_json::from_slice(&body).map_err(|_| self.exchange.no_answer("it is not JSON"))?;
        if let Some(told) = Told::read(&body) {
            return Err(self.exchange.broken_off(told));
        }
        let delta = self.reader.whole(body).map_err(|fault| self.exchange.fault(&fault))?;
        self.collector.add(delta).map_err(|fault| self.exchange.fault(&fault))
    }
}
