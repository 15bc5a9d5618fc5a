//! `/v2/placement/decisions`: why the latest requests went where they went.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use gateway::{Considered, Decision};
use orch_api::{PlacementCandidate, PlacementDecision, paths};

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new().route(paths::DECISIONS, get(list))
}

async fn list(State(state): State<ControlState>) -> Json<Vec<PlacementDecision>> {
    Json(state.gateway.decisions().into_iter().map(told).collect())
}

fn told(decision: Decision) -> PlacementDecision {
    PlacementDecision {
        at: decision.at.to_rfc3339(),
        request_id: decision.request_id,
        strategy: decision.strategy.to_owned(),
        outcome: decision.outcome.to_owned(),
        reason: decision.reason,
        chosen: decision.chosen,
        pinned: decision.pinned,
        fallback: decision.fallback,
        attempt: decision.attempt as u64,
        candidates: decision.candidates.into_iter().map(candidate).collect(),
    }
}

fn candidate(considered: Considered) -> PlacementCandidate {
    PlacementCandidate {
        replica: considered.replica,
        verdict: considered.verdict.to_owned(),
        free_slots: considered.free_slots,
        session: considered.session,
        shared_prefix: considered.shared_prefix,
    }
}
