//! `/v2/memory`: who holds how much memory where, and what loading an instance would take.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use orch_api::MemoryReport;
use orch_core::{ExitCode, Failure};
use serde::Deserialize;

use super::ApiState;
use super::answers::{Refusal, valid};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    instance: Option<String>,
}

pub(super) async fn show(
    State(state): State<ApiState>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<MemoryReport>, Refusal> {
    let Query(asked) = valid(asked)?;
    let report = state.manager.memory(asked.instance.as_deref()).await?;
    Ok(Json(report.ok_or_else(|| Failure::new(ExitCode::General, "memory could not be looked at"))?))
}
