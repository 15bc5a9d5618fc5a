//! The port to whatever sends requests to engines: at home the gateway, in the cloud the node agent.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use orch_core::{DesiredState, Health, InstanceName, ReplicaId, Status, UnixMillis};

/// What a router needs to know of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSnapshot {
    pub instance: InstanceName,
    pub replica: ReplicaId,
    pub aliases: Vec<String>,
    pub status: Status,
    pub health: Health,
    pub desired: DesiredState,
    /// Whether requests may be sent to it now.
    pub routable: bool,
    /// Host to connect to; a wildcard bind is reached through loopback.
    pub host: String,
    /// 0 while no process has a port.
    pub port: u16,
    /// The key that the engine itself asks for.
    pub api_key: Option<String>,
    /// Slots that the engine really has; 1 until it has told.
    pub slots_total: u32,
    /// Context of one slot in tokens, as the engine told.
    pub context: Option<u64>,
    /// When the last good probe was.
    pub last_good_probe: UnixMillis,
    /// When the instance was made, for listings.
    pub created_at: UnixMillis,
    /// Automatic restarts since the last `up`.
    pub restarts: u32,
    /// Automatic restarts since this process began to look after it; only grows.
    pub restarts_seen: u64,
    pub last_error: Option<String>,
}

/// A boxed future, so that the port can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Told about every change before anybody who waits for it is answered: when `up` returns, requests are routed.
pub trait Traffic: Send + Sync {
    /// The new truth about all replicas of this node.
    fn publish(&self, replicas: Vec<ReplicaSnapshot>);

    /// Lets the requests in flight finish until `deadline`, then ends them and closes every connection to the
    /// engine (it ignores a request to stop while somebody is connected).
    fn drain<'a>(
        &'a self,
        instance: &'a InstanceName,
        replica: ReplicaId,
        deadline: Duration,
    ) -> BoxFuture<'a, ()>;
}
