//! `/v2/capabilities`: what this control plane can, for clients that have to know before they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use gateway::data_paths;
use orch_api::{
    Capabilities, CapableEndpoint, CapableEngine, CapableFeatures, CapableLimits, ENDPOINTS, paths,
};
use orch_runtime::{FullPolicy, PlacementStrategy, Settings};
use pool_managerd::Keys as _;

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new().route(paths::CAPABILITIES, get(show))
}

/// What does not change in the life of a daemon.
pub(crate) fn of_settings(settings: &Settings) -> Capabilities {
    let limits = &settings.limits;
    let own = ENDPOINTS.iter().map(|endpoint| CapableEndpoint {
        method: endpoint.verb.label().to_owned(),
        path: endpoint.path.to_owned(),
    });
    Capabilities {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v2".to_owned(),
        profile: "home".to_owned(),
        dialects: ["openai", "anthropic", "ollama", "llama.cpp", "native"].map(str::to_owned).to_vec(),
        data_paths: data_paths().map(str::to_owned).collect(),
        endpoints: own.collect(),
        features: CapableFeatures {
            asks_for_keys: false,
            captures_bodies: settings.capture_bodies,
            strategy: strategy(settings.orchestratord.placement_strategy).to_owned(),
            routes: settings.routes.keys().cloned().collect(),
        },
        limits: CapableLimits {
            body_mb: limits.body.0 / (1024 * 1024),
            queue: limits.queue,
            full_policy: full_policy(limits.full_policy).to_owned(),
            queue_deadline_ms: millis(limits.queue_deadline),
            token_idle_ms: millis(limits.token_idle),
            retries: limits.retries,
        },
        engines: Vec::new(),
        devices: Vec::new(),
    }
}

async fn show(State(state): State<ControlState>) -> Json<Capabilities> {
    let mut capabilities = Capabilities::clone(&state.capabilities);
    capabilities.features.asks_for_keys = !state.keys.ring().is_empty();
    capabilities.engines = engines(&state);
    capabilities.devices = state.devices.read().await.into_iter().map(|device| device.device).collect();
    Json(capabilities)
}

/// Engines that have told their version, with the instances they serve.
fn engines(state: &ControlState) -> Vec<CapableEngine> {
    let mut by_version: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for snapshot in state.node.manager.snapshots() {
        if let Some(version) = snapshot.engine_version.filter(|_| snapshot.status.has_process()) {
            by_version.entry(version).or_default().insert(snapshot.instance.to_string());
        }
    }
    let engines = by_version.into_iter();
    engines
        .map(|(version, instances)| CapableEngine { version, instances: instances.into_iter().collect() })
        .collect()
}

const fn full_policy(policy: FullPolicy) -> &'static str {
    match policy {
        FullPolicy::Reject => "reject",
        FullPolicy::DropLru => "drop-lru",
    }
}

const fn strategy(strategy: PlacementStrategy) -> &'static str {
    match strategy {
        PlacementStrategy::Affinity => "affinity",
        PlacementStrategy::RoundRobin => "round-robin",
        PlacementStrategy::LeastLoaded => "least-loaded",
        PlacementStrategy::Random => "random",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
