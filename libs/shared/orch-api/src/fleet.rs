//! Pools, nodes, and why requests went where they went.

use orch_core::{Health, ReplicaId, Status};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shape::{health_schema, replica_schema, status_schema};

/// The engines of one instance, to which requests for it go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// The name of its instance.
    pub pool_id: String,
    /// The node that it is on.
    pub node_id: String,
    /// Further names under which it can be asked for.
    pub aliases: Vec<String>,
    /// Whether a request could be served now.
    pub ready: bool,
    /// Slots of its ready engines.
    pub slots_total: u32,
    /// Those of them that no request keeps busy.
    pub slots_free: u32,
    /// Its engines.
    pub replicas: Vec<PoolReplica>,
    /// Who waits under one of its names.
    pub queue: PoolQueue,
}

/// One engine of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolReplica {
    /// Which one.
    #[schema(schema_with = replica_schema)]
    pub replica_id: ReplicaId,
    /// What its process does.
    #[schema(schema_with = status_schema)]
    pub status: Status,
    /// What the last probes said.
    #[schema(schema_with = health_schema)]
    pub health: Health,
    /// Whether requests are sent to it.
    pub ready: bool,
    /// What the engine really has.
    pub slots_total: u32,
    /// Slots that no request keeps busy; `null` while it is not ready.
    pub slots_free: Option<u32>,
    /// Tokens that fit one slot; `null` until the engine has told.
    pub ctx: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Who waits for a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolQueue {
    /// Requests for which somebody waits.
    pub interactive: u64,
    /// Requests that can wait for those.
    pub batch: u64,
    /// Milliseconds that the one has waited that came first.
    pub oldest_ms: u64,
}

/// How a pool is, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolHealth {
    /// The name of its instance.
    pub pool_id: String,
    /// Whether an engine of it has a process.
    pub live: bool,
    /// Whether a request could be served now.
    pub ready: bool,
    /// Slots of its ready engines.
    pub slots_total: u32,
    /// Those of them that no request keeps busy.
    pub slots_free: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How long what is under way may take to finish; may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainRequest {
    /// Milliseconds; `limits.drain_s` where it is not given.
    pub deadline_ms: Option<u64>,
}

/// Another model for a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// As `model.path` of a config: a file, or a reference to a model of the home.
    pub new_model_ref: String,
}

/// One machine with engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub node_id: String,
    /// `Registering`, `Online`, `Draining`, `Offline` or `Failed`.
    pub state: String,
    /// Whether it gets nothing new: requests wait until it is uncordoned.
    pub cordoned: bool,
    /// Of its program.
    pub version: String,
    /// The instances on it.
    pub pools: Vec<String>,
    /// Seconds since its program started.
    pub uptime_seconds: u64,
}

/// Why one request went where it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementDecision {
    /// When, RFC 3339.
    pub at: String,
    /// The request.
    pub request_id: String,
    /// By which strategy.
    pub strategy: String,
    /// `placed` or `refused`.
    pub outcome: String,
    /// What tipped the balance, or why it was refused.
    pub reason: String,
    /// Where it went, as `node/pool/replica`.
    pub chosen: Option<String>,
    /// Whether the client had pinned it.
    pub pinned: bool,
    /// Whether the client preferred others, of which none could take it.
    pub fallback: bool,
    /// The how-manieth attempt of its request, from 1.
    pub attempt: u64,
    /// Who was looked at.
    pub candidates: Vec<PlacementCandidate>,
}

/// One replica as it was at the moment of a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacementCandidate {
    /// `node/pool/replica`.
    pub replica: String,
    /// `possible`, or why it was left out.
    pub verdict: String,
    /// Negative when requests already waited inside the engine.
    pub free_slots: i64,
    /// Whether it answered the request's session before.
    pub session: bool,
    /// So many bytes of the prompt should have been in its cache.
    pub shared_prefix: u32,
}
