//! Keeping requests from the node of this machine: cordoned, it finishes what it has and gets nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use control_store::ControlStore;
use futures_util::future::join_all;
use orch_core::{Failure, UnixMillis};
use pool_manager::{ReplicaSnapshot, Traffic};

use crate::routing::GatewayTraffic;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Cordon {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<ControlStore>,
    traffic: Arc<GatewayTraffic>,
    /// How many drains are under way.
    drains: AtomicUsize,
}

impl Cordon {
    /// As somebody left it: a cordon outlives the daemon.
    pub(crate) fn open(store: Arc<ControlStore>, traffic: Arc<GatewayTraffic>) -> Result<Self, Failure> {
        traffic.set_cordoned(store.is_cordoned(&traffic.node_id)?);
        Ok(Self { inner: Arc::new(Inner { store, traffic, drains: AtomicUsize::new(0) }) })
    }

    /// Writes it down and puts it into effect. Waits for the disk.
    pub(crate) fn set(&self, cordoned: bool) -> Result<(), Failure> {
        let Inner { store, traffic, .. } = &*self.inner;
        if cordoned {
            store.cordon(&traffic.node_id, UnixMillis::now())?;
        } else {
            store.uncordon(&traffic.node_id)?;
        }
        traffic.set_cordoned(cordoned);
        tracing::info!(node = traffic.node_id, cordoned, "what the node gets was changed");
        Ok(())
    }

    pub(crate) fn is_set(&self) -> bool {
        self.inner.traffic.is_cordoned()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.inner.drains.load(Ordering::Relaxed) > 0
    }

    /// Waits until these replicas have finished what they have; at the deadline the rest is cut off.
    pub(crate) async fn drain(&self, replicas: Vec<ReplicaSnapshot>, deadline: Duration) {
        let drains = &self.inner.drains;
        drains.fetch_add(1, Ordering::Relaxed);
        let _over = Over(drains);
        let each = replicas.iter().map(|it| self.inner.traffic.drain(&it.instance, it.replica, deadline));
        join_all(each).await;
    }
}

/// Counts a drain out, also one that is cut short.
struct Over<'d>(&'d AtomicUsize);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
