//! `/openapi.json`: this interface, described.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use orch_api::{openapi, paths};

use super::ControlState;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi().to_string());

pub(super) fn router() -> Router<ControlState> {
    Router::new().route(paths::OPENAPI, get(show))
}

async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
