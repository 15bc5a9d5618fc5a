//! What a control plane can.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a control plane can, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// Of the program.
    pub version: String,
    /// Of this interface: `v2`.
    pub api: String,
    /// `home`: one machine whose node is linked in.
    pub profile: String,
    /// The dialects that clients may speak.
    pub dialects: Vec<String>,
    /// Paths of the data plane; `*` stands for any rest.
    pub data_paths: Vec<String>,
    /// What `/v2` answers.
    pub endpoints: Vec<CapableEndpoint>,
    /// How it is set up.
    pub features: CapableFeatures,
    /// Its bounds.
    pub limits: CapableLimits,
    /// The engines that run now.
    pub engines: Vec<CapableEngine>,
    /// Graphics devices of which a driver tells.
    pub devices: Vec<String>,
}

/// One endpoint of `/v2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapableEndpoint {
    /// The method.
    pub method: String,
    /// Its path, with `{…}` for a segment.
    pub path: String,
}

/// How a control plane is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapableFeatures {
    /// Whether requests need a key.
    pub asks_for_keys: bool,
    /// Whether the request log keeps bodies.
    pub captures_bodies: bool,
    /// How a replica is chosen.
    pub strategy: String,
    /// The routes of the settings, by name.
    pub routes: Vec<String>,
}

/// Bounds of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapableLimits {
    /// The largest body, in MiB.
    pub body_mb: u64,
    /// How many may wait for one route.
    pub queue: u32,
    /// What happens then: `reject` or `drop-lru`.
    pub full_policy: String,
    /// The longest wait in a queue.
    pub queue_deadline_ms: u64,
    /// The longest wait for the next token.
    pub token_idle_ms: u64,
    /// Further replicas tried before the first byte.
    pub retries: u32,
}

/// Engines of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapableEngine {
    /// As the engine, or whoever installed it, names it.
    pub version: String,
    /// The instances that run on it.
    pub instances: Vec<String>,
}
