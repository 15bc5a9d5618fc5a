//! Failures as `/v2` tells them, and requests that are not what they should be.

use axum::Json;
use axum::body::Bytes;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use orch_api::ErrorBody;
use orch_core::{ErrorCode, ExitCode, Failure};
use serde::de::DeserializeOwned;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const BACKOFF_MS: HeaderName = HeaderName::from_static("x-backoff-ms");

/// A failure on its way out.
#[derive(Debug)]
pub struct Refusal(Box<ErrorBody>);

/// What an extractor made of a request, with its refusal in our shape.
pub fn valid<T, E: std::fmt::Display + IntoResponse>(extracted: Result<T, E>) -> Result<T, Refusal> {
    extracted.map_err(|error| {
        let message = error.to_string();
        let code = match error.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
            _ => ErrorCode::InvalidParams,
        };
        ErrorBody::new(code, message).into()
    })
}

/// A body that may be left out; one that is there says only what is known.
pub fn optional<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        ErrorBody::new(ErrorCode::InvalidParams, format!("the body cannot be used: {error}")).into()
    })
}

impl Refusal {
    /// What is told.
    pub fn body(&self) -> &ErrorBody {
        &self.0
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        ErrorBody::from(failure).into()
    }
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self(Box::new(body))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.0.error_code();
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let wait = self.0.retry_after_ms.filter(|_| self.0.retriable);
        let mut response = (status, Json(*self.0)).into_response();
        let headers = response.headers_mut();
        match wait {
            Some(wait) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.div_ceil(1000).max(1)));
                headers.insert(BACKOFF_MS, HeaderValue::from(wait));
            }
            None => drop(headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"))),
        }
        response
    }
}

/// What is answered where nothing is.
pub async fn no_such_path(uri: Uri) -> Refusal {
    Failure::new(ExitCode::InstanceNotFound, format!("there is no {}", uri.path())).into()
}

/// What is answered where something is, but not this.
pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Failure::new(ExitCode::Usage, format!("{} does not take {method}", uri.path())).into()
}
