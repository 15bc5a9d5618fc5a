//! `/v2/pools`: the engines behind each instance, and who waits for them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use gateway::QueueView;
use orch_api::{DrainRequest, Operation, PoolHealth, PoolQueue, PoolReplica, PoolView, paths};
use orch_core::{ExitCode, Failure, InstanceName};
use pool_manager::ReplicaSnapshot;
use pool_managerd::api::{Expected, Refusal, optional, valid};

use super::ControlState;

pub(super) fn router() -> Router<ControlState> {
    Router::new()
        .route(paths::POOLS, get(list))
        .route(paths::POOL_HEALTH, get(health))
        .route(paths::POOL_DRAIN, post(drain))
}

async fn list(State(state): State<ControlState>) -> Result<Json<Vec<PoolView>>, Refusal> {
    Ok(Json(pools(&state).await?))
}

async fn health(
    State(state): State<ControlState>,
    Path(id): Path<String>,
) -> Result<Json<PoolHealth>, Refusal> {
    let pool = find(&state, &id).await?;
    Ok(Json(PoolHealth {
        live: pool.replicas.iter().any(|replica| replica.status.has_process()),
        ready: pool.ready,
        slots_total: pool.slots_total,
        slots_free: pool.slots_free,
        last_error: pool.replicas.into_iter().find_map(|replica| replica.last_error),
        pool_id: pool.pool_id,
    }))
}

async fn drain(
    State(state): State<ControlState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Operation>), Refusal> {
    let DrainRequest { deadline_ms } = optional(&valid(body)?)?;
    let pool = find(&state, &id).await?.pool_id;
    let deadline = deadline_ms.map_or(state.drain, Duration::from_millis);
    let (manager, name) = (state.node.manager.clone(), pool.clone());
    let step = async move { manager.down(&name, false, deadline).await };
    let operation = state.node.operations.begin("drain", &pool, Expected::Nothing, step);
    Ok((StatusCode::ACCEPTED, Json(operation)))
}

async fn find(state: &ControlState, id: &str) -> Result<PoolView, Failure> {
    let found = pools(state).await?.into_iter().find(|pool| pool.pool_id == id);
    found.ok_or_else(|| Failure::new(ExitCode::InstanceNotFound, format!("there is no pool {id:?}")))
}

async fn pools(state: &ControlState) -> Result<Vec<PoolView>, Failure> {
    // Configs that came or went since the last look count.
    state.node.manager.refresh().await?;
    let mut by_name: BTreeMap<InstanceName, Vec<ReplicaSnapshot>> = BTreeMap::new();
    for snapshot in state.node.manager.snapshots() {
        by_name.entry(snapshot.instance.clone()).or_default().push(snapshot);
    }
    let queues = state.gateway.queues();
    Ok(by_name.into_iter().map(|(name, replicas)| pool(state, &name, &replicas, &queues)).collect())
}

fn pool(
    state: &ControlState,
    name: &InstanceName,
    snapshots: &[ReplicaSnapshot],
    queues: &[QueueView],
) -> PoolView {
    let replicas: Vec<PoolReplica> = snapshots.iter().map(|snapshot| replica(state, snapshot)).collect();
    let ready = || replicas.iter().filter(|replica| replica.ready);
    let aliases = snapshots.first().map(|snapshot| snapshot.aliases.clone()).unwrap_or_default();
    PoolView {
        pool_id: name.to_string(),
        node_id: state.node.node_id.to_string(),
        ready: ready().next().is_some(),
        slots_total: ready().map(|replica| replica.slots_total).sum(),
        slots_free: ready().filter_map(|replica| replica.slots_free).sum(),
        queue: queue(name, &aliases, queues),
        aliases,
        replicas,
    }
}

fn replica(state: &ControlState, snapshot: &ReplicaSnapshot) -> PoolReplica {
    let busy = || (state.node.slots)(&snapshot.instance, snapshot.replica);
    // A cordoned node gets nothing, however well its engines are.
    let ready = snapshot.routable && !state.cordon.is_set();
    let free = ready.then(busy).flatten().map(|busy| snapshot.slots_total.saturating_sub(busy));
    PoolReplica {
        replica_id: snapshot.replica,
        status: snapshot.status,
        health: snapshot.health,
        ready,
        slots_total: snapshot.slots_total,
        slots_free: free,
        ctx: snapshot.context,
        last_error: snapshot.last_error.clone(),
    }
}

/// Those who wait under the name of the instance, or under one that it shares with others.
fn queue(name: &InstanceName, aliases: &[String], queues: &[QueueView]) -> PoolQueue {
    let mut all = PoolQueue::default();
    for queue in queues {
        let Some(route) = &queue.route else { continue };
        if route == name.as_str() || aliases.contains(route) {
            all.interactive += queue.interactive as u64;
            all.batch += queue.batch as u64;
            all.oldest_ms = all.oldest_ms.max(queue.oldest.as_millis() as u64);
        }
    }
    all
}
