//! The server about itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of the program.
    pub version: String,
    /// Of this interface: `v2`.
    pub api: String,
}

/// What `daemon status` prints; the names of the fields are a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    /// Whether it lives.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: Option<String>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// Memory of its process.
    pub rss_bytes: Option<u64>,
    /// Instances whose engines run.
    pub instances_running: usize,
    /// Of the program.
    pub version: String,
}
