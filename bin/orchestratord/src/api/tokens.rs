//! `/v2/tokens`: keys, for administrators.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use orch_api::{CreatedKey, KeyOrder, KeyView, RevokedKey, paths};
use orch_core::{ExitCode, Failure};
use pool_managerd::api::answers::{Refusal, valid};

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new().route(paths::TOKENS, get(list).post(create)).route(paths::TOKEN, delete(revoke))
}

async fn list(State(ControlState { keys, .. }): State<ControlState>) -> Result<Json<Vec<KeyView>>, Refusal> {
    Ok(Json(away(move || keys.list()).await?))
}

async fn create(
    State(ControlState { keys, .. }): State<ControlState>,
    order: Result<Json<KeyOrder>, JsonRejection>,
) -> Result<(StatusCode, Json<CreatedKey>), Refusal> {
    let Json(order) = valid(order)?;
    Ok((StatusCode::CREATED, Json(away(move || keys.create(order)).await?)))
}

/// By id or by name.
async fn revoke(
    State(ControlState { keys, .. }): State<ControlState>,
    Path(selector): Path<String>,
) -> Result<Json<RevokedKey>, Refusal> {
    Ok(Json(away(move || keys.revoke(&selector)).await?))
}

/// The store is a file: asked where waiting holds nobody up.
async fn away<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Refusal> {
    let cut = |error| Failure::new(ExitCode::General, format!("the keys were not reached: {error}"));
    Ok(tokio::task::spawn_blocking(work).await.map_err(cut)??)
}
