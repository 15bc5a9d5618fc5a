//! The port to whatever sends requests to engines: at home the gateway, in the cloud the node agent.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

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
    /// Where to connect to; a wildcard bind is reached through loopback. `None` while there is no process.
    pub address: Option<SocketAddr>,
    /// The engine's process.
    pub pid: Option<u32>,
    /// The engine's version, once it is ready and as far as it is known.
    pub engine_version: Option<String>,
    /// The key that the engine itself asks for.
    pub api_key: Option<String>,
    /// Slots that the engine really has; 1 until it has told.
    pub slots_total: u32,
    /// Context of one slot in tokens, as the engine told.
    pub context: Option<u64>,
    /// The devices that its engine is limited to; `None` where it may use all.
    pub device_mask: Option<String>,
    /// When the last good probe was. A change of this alone is told by [`Traffic::probed`].
    pub last_good_probe: UnixMillis,
    /// When the instance was made, for listings.
    pub created_at: UnixMillis,
    /// Automatic restarts since the last `up`.
    pub restarts: u32,
    /// Automatic restarts since this process began to look after it, by what made them necessary; only grows.
    pub restarts_seen: BTreeMap<&'static str, u64>,
    pub last_error: Option<String>,
    /// Since when it has been ready; `None` while it is not.
    pub ready_since: Option<Instant>,
    /// It takes no new requests: somebody else has been waited for too long, or it is about to be unloaded.
    pub yielding: bool,
    /// After failed loads no request loads it before then.
    pub load_after: Option<Instant>,
    /// It failed too often: no request loads it until the next `up`.
    pub gave_up: bool,
    /// Why no request can load it now, though it is wanted on demand.
    pub refused: Option<String>,
}

/// A boxed future, so that the port can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How requests to a replica have been going since whoever sends them began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSigns {
    /// Generations in flight now.
    pub in_flight: u32,
    /// Grows with every piece of a generation that the engine sends.
    pub progress: u64,
    /// Generations in a row that the engine failed: a 5xx answer (501 says "not my work" and does not count), an
    /// answer broken off, none within the limit. A whole good answer begins anew; what clients did wrong, or
    /// gave up, changes nothing.
    pub failures: u32,
    /// The status of the latest failure; 0 = an answer broke off or never came.
    pub last_status: u16,
}

/// What requests want of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub instance: InstanceName,
    /// Requests that wait for it.
    pub waiting: usize,
    /// How long the oldest of them has been waiting.
    pub oldest_wait: Option<Duration>,
    /// Requests that its replicas are working on.
    pub in_flight: usize,
    /// Since its last request ended; `None` = it had none since it is loaded.
    pub idle_for: Option<Duration>,
}

/// Told about every change before anybody who waits for it is answered: when `up` returns, requests are routed.
pub trait Traffic: Send + Sync {
    /// The new truth about all replicas of this node.
    fn publish(&self, replicas: Vec<ReplicaSnapshot>);

    /// A replica answered a probe well at `at`; nothing else about it changed.
    fn probed(&self, instance: &InstanceName, replica: ReplicaId, at: UnixMillis);

    /// How requests to a replica are going.
    fn signs(&self, instance: &InstanceName, replica: ReplicaId) -> RequestSigns;

    /// What requests want of every instance that is published; empty where nobody counts them.
    fn demand(&self) -> Vec<Demand>;

    /// Completes when [`Self::demand`] may have changed since this was last awaited.
    fn demand_changed(&self) -> BoxFuture<'_, ()>;

    /// Lets the requests in flight finish until `deadline`, then ends them and closes every connection to the
    /// engine (it ignores a request to stop while somebody is connected).
    fn drain<'a>(
        &'a self,
        instance: &'a InstanceName,
        replica: ReplicaId,
        deadline: Duration,
    ) -> BoxFuture<'a, ()>;
}
