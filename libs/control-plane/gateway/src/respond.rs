//! Answers that the gateway gives itself.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use llm_adapters::{Dialect, Problem, error_body};
use orch_runtime::RequestId;
use serde::Serialize;

use crate::body::GatewayBody;
use crate::headers::{CONTEXT, INSTANCE, NODE};

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const BACKOFF_MS: HeaderName = HeaderName::from_static("x-backoff-ms");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A refusal in the caller's dialect, with the headers that tell its library whether to try again.
pub fn refuse(dialect: Dialect, problem: &Problem, request_id: &RequestId) -> Response<GatewayBody> {
    let mut response = whole(JSON, error_body(dialect, problem, request_id.as_str()));
    *response.status_mut() =
        StatusCode::from_u16(problem.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(RequestId::HEADER, request_id.header_value());
    name_place(problem, headers);
    match problem.wait() {
        Some(wait) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64));
            headers.insert(BACKOFF_MS, HeaderValue::from(wait.as_millis() as u64));
        }
        // Clients' libraries retry by status alone unless they are told not to.
        None => drop(headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"))),
    }
    response
}

/// Where it went wrong, under the names that a good answer has.
fn name_place(problem: &Problem, headers: &mut HeaderMap) {
    for (name, id) in [(INSTANCE, &problem.pool_id), (NODE, &problem.node_id)] {
        if let Some(value) = id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(name, value);
        }
    }
    if let Some(numbers) = &problem.context {
        headers.insert(CONTEXT, HeaderValue::from(numbers.slot_context));
    }
}

pub(crate) fn json(value: &impl Serialize) -> Response<GatewayBody> {
    let text = serde_json::to_vec(value).expect("values made here have text keys only");
    whole(JSON, Bytes::from(text))
}

pub(crate) fn metrics(text: String) -> Response<GatewayBody> {
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    whole(HeaderValue::from_static(media_type), Bytes::from(text))
}

fn whole(media_type: HeaderValue, body: Bytes) -> Response<GatewayBody> {
    let mut response = Response::new(GatewayBody::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
