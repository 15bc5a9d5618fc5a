//! Steps that ask an HTTP service.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use workflow_spec::{Effect, FailureKind, HttpStep, Names, OutputFormat, Step};

use super::format::{beginning, parsed, word};
use super::sight::{Rendered, Sight, unusable};
use super::{Action, Attempt, Performed};
use crate::log::StepLog;
use crate::{CallFailure, PortFuture, ServiceAnswer, ServiceRequest};

/// Longer answers are no values for a workflow.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// Services that know it do a request with the same key once.
const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";

/// An `http` step with every text rendered.
pub(crate) struct ServiceAction {
    method: String,
    call: Rendered<Call>,
    secrets: Vec<String>,
    format: OutputFormat,
    effect: Effect,
    sample: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    url: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl ServiceAction {
    pub(crate) fn new(
        step: &Step,
        http: &HttpStep,
        sight: &Sight,
        sample: Option<u32>,
    ) -> Result<Self, CallFailure> {
        let call = sight.render(|names| Call::render(http, names))?;
        // Addresses are written down by every proxy and server on the way.
        if let Ok((revealed, _)) = &call.revealed
            && revealed.url != call.shown.url
        {
            let message = "a secret stands in the url; services read it from a header or the body";
            return Err(CallFailure::new(FailureKind::Validation, message));
        }
        Ok(Self {
            method: http.method.to_ascii_uppercase(),
            call,
            secrets: step.secrets.clone(),
            format: http.format,
            effect: step.effect,
            sample,
        })
    }

    async fn ask(&self, attempt: Attempt) -> Result<Performed, CallFailure> {
        let (call, secrets) = self.call.revealed.clone()?;
        let log = StepLog::new(&attempt.log, &secrets);
        log.note(&format!("{} {}\n", self.method, call.url));
        let url = call.url.clone();
        let request = self.request(call, &attempt);
        let answer = match attempt.ports.services.ask(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                let failure = secrets.filter_failure(failure);
                log.note(&format!("{failure}\n"));
                return Err(failure);
            }
        };
        log.note(&format!("{}, {} bytes\n{}\n", answer.status, answer.body.len(), answer.body));
        if !(200..300).contains(&answer.status) {
            return Err(secrets.filter_failure(refusal(&self.method, &url, &answer)));
        }
        let text = secrets.filter(&answer.body).into_owned();
        let output = parsed(text, self.format, &format!("the answer of {url}"));
        let output = output.map_err(CallFailure::after_the_effect)?;
        Ok(Performed { output, ..Performed::default() })
    }

    fn request(&self, call: Call, attempt: &Attempt) -> ServiceRequest {
        let mut headers = call.headers;
        if self.effect == Effect::External {
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case(IDEMPOTENCY_HEADER));
            headers.push((IDEMPOTENCY_HEADER.to_owned(), attempt.idempotency_key.clone()));
        }
        ServiceRequest {
            method: self.method.clone(),
            url: call.url,
            headers,
            body: call.body,
            answer_limit: ANSWER_LIMIT,
        }
    }
}

impl Action for ServiceAction {
    fn key_document(&self) -> Value {
        let call = &self.call.shown;
        let headers: Map<String, Value> =
            call.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let mut document = json!({
            "v": 1,
            "kind": "http",
            "method": self.method,
            "url": call.url,
            "headers": headers,
            "format": word(self.format),
            "secrets": self.secrets,
        });
        if let Some(body) = &call.body {
            document["body"] = body.clone().into();
        }
        if let Some(sample) = self.sample {
            document["sample"] = sample.into();
        }
        document
    }

    fn perform(self: Arc<Self>, attempt: Attempt) -> PortFuture<Result<Performed, CallFailure>> {
        Box::pin(async move { self.ask(attempt).await })
    }
}

impl Call {
    fn render(http: &HttpStep, names: &Arc<dyn Names>) -> Result<Self, CallFailure> {
        let url = http.url.render(names).map_err(|error| unusable("url", &error))?;
        let mut headers = Vec::with_capacity(http.headers.len() + 1);
        for (name, value) in &http.headers {
            let what = format!("headers.{name}");
            let value = value.render(names).map_err(|error| unusable(&what, &error))?;
            headers.push((name.clone(), one_line(&value, &what)?));
        }
        let body = http.body.as_ref().map(|body| body.render(names)).transpose();
        let body = match body.map_err(|error| unusable("body", &error))? {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(json) => {
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                }
                Some(json.to_string())
            }
        };
        Ok(Self { url: url.trim().to_owned(), headers, body })
    }
}

/// A text with a line break in it could write headers of its own.
fn one_line(value: &str, what: &str) -> Result<String, CallFailure> {
    let value = value.trim().to_owned();
    if value.chars().any(|letter| letter.is_control() && letter != '\t') {
        let message = format!("{what} holds a line break or another control character");
        return Err(CallFailure::new(FailureKind::Validation, message));
    }
    Ok(value)
}

fn refusal(method: &str, url: &str, answer: &ServiceAnswer) -> CallFailure {
    let kind = match answer.status {
        401 | 403 => FailureKind::Auth,
        408 => FailureKind::Timeout,
        429 => FailureKind::RateLimit,
        500.. => FailureKind::Overloaded,
        _ => FailureKind::Tool,
    };
    let said = beginning(&answer.body);
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let message = format!("{method} {url} was answered with {}{said}", answer.status);
    let failure = CallFailure::new(kind, message);
    // A service that broke, or a proxy that waited for it in vain, may have come as far as the effect.
    let unsure = failure.unsure || matches!(answer.status, 500 | 502 | 504);
    CallFailure { retry_after: answer.retry_after, unsure, ..failure }
}
