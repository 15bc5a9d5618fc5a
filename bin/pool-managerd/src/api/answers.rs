//! Failures as `/v2` tells them.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use orch_core::{ErrorCode, ExitCode, Failure};
use serde_json::json;

/// A failure on its way out.
pub(super) struct Refusal(pub Failure);

/// What an extractor made of a request, with its refusal in our shape.
pub(super) fn valid<T, E: std::fmt::Display>(extracted: Result<T, E>) -> Result<T, Refusal> {
    extracted.map_err(|error| Refusal(Failure::new(ExitCode::Usage, error.to_string())))
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Failure { exit, message, hint } = self.0;
        let code = ErrorCode::from_exit(exit);
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({
            "code": code.label(),
            "message": message,
            "hint": hint,
            "exit_code": exit,
            "retriable": code.retriable(),
            "retry_after_ms": null,
            "policy_label": null,
            "node_id": null,
            "pool_id": null,
        });
        (status, Json(body)).into_response()
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    Refusal(Failure::new(ExitCode::InstanceNotFound, format!("there is no {}", uri.path())))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal(Failure::new(ExitCode::Usage, format!("{} does not take {method}", uri.path())))
}
