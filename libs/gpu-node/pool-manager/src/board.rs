//! The current truth about all replicas of this node, told to whoever routes requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use orch_core::{InstanceName, ReplicaId};

use tokio::sync::Notify;

use crate::traffic::{ReplicaSnapshot, Traffic};

/// Collects the supervisors' snapshots and publishes the whole whenever one changes.
pub(crate) struct Board {
    traffic: Arc<dyn Traffic>,
    replicas: Mutex<BTreeMap<(InstanceName, ReplicaId), ReplicaSnapshot>>,
    news: Notify,
}

impl Board {
    pub(crate) fn new(traffic: Arc<dyn Traffic>) -> Self {
        Self { traffic, replicas: Mutex::default(), news: Notify::new() }
    }

    pub(crate) fn traffic(&self) -> &dyn Traffic {
        &*self.traffic
    }

    /// Puts up one replica's state. When this returns, requests follow it.
    pub(crate) fn update(&self, snapshot: ReplicaSnapshot) {
        let key = (snapshot.instance.clone(), snapshot.replica);
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = replicas.get_mut(&key) {
            let at = snapshot.last_good_probe;
            let probed = std::mem::replace(&mut known.last_good_probe, at) != at;
            if *known == snapshot {
                // The commonest change by far is not worth a new table.
                if probed {
                    self.traffic.probed(&snapshot.instance, snapshot.replica, at);
                }
                return;
            }
        }
        replicas.insert(key, snapshot);
        // Published under the lock, so that an older picture never overtakes a newer one.
        self.traffic.publish(replicas.values().cloned().collect());
        self.news.notify_one();
    }

    /// Takes a replica off the board.
    pub(crate) fn remove(&self, instance: &InstanceName, replica: ReplicaId) {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if replicas.remove(&(instance.clone(), replica)).is_some() {
            self.traffic.publish(replicas.values().cloned().collect());
            self.news.notify_one();
        }
    }

    /// Completes when something was put up or taken off since this was last awaited. For one listener.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Makes [`Self::changed`] complete.
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    /// Everything on the board.
    pub(crate) fn snapshots(&self) -> Vec<ReplicaSnapshot> {
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use orch_core::{DesiredState, Health, Status, UnixMillis};

    use super::*;
    use crate::traffic::{BoxFuture, Demand, RequestSigns};

    /// Remembers what it was told.
    #[derive(Default)]
    struct Listener {
        told: Mutex<Vec<String>>,
    }

    impl Traffic for Listener {
        fn publish(&self, replicas: Vec<ReplicaSnapshot>) {
            self.told.lock().unwrap().push(format!("table of {}", replicas.len()));
        }

        fn probed(&self, instance: &InstanceName, _: ReplicaId, at: UnixMillis) {
            self.told.lock().unwrap().push(format!("{instance} was well at {}", at.0));
        }

        fn signs(&self, _: &InstanceName, _: ReplicaId) -> RequestSigns {
            RequestSigns::default()
        }

        fn demand(&self) -> Vec<Demand> {
            Vec::new()
        }

        fn demand_changed(&self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn drain<'a>(&'a self, _: &'a InstanceName, _: ReplicaId, _: Duration) -> BoxFuture<'a, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn snapshot(probe: i64) -> ReplicaSnapshot {
        ReplicaSnapshot {
            instance: InstanceName::new("chat").unwrap(),
            replica: ReplicaId::FIRST,
            aliases: Vec::new(),
            status: Status::Running,
            health: Health::Healthy,
            desired: DesiredState::Running,
            routable: true,
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8001))),
            pid: Some(4711),
            engine_version: None,
            api_key: None,
            slots_total: 1,
            context: None,
            device_mask: None,
            last_good_probe: UnixMillis(probe),
            created_at: UnixMillis(0),
            restarts: 0,
            restarts_seen: BTreeMap::new(),
            last_error: None,
            ready_since: None,
            yielding: false,
            load_after: None,
            gave_up: false,
            refused: None,
        }
    }

    #[test]
    fn a_good_probe_alone_makes_no_new_table() {
        let listener = Arc::new(Listener::default());
        let board = Board::new(listener.clone());
        for probe in [1, 1, 2] {
            board.update(snapshot(probe));
        }
        board.update(ReplicaSnapshot { health: Health::Unhealthy, ..snapshot(3) });
        board.remove(&snapshot(3).instance, ReplicaId::FIRST);
        let told = listener.told.lock().unwrap().clone();
        assert_eq!(told, ["table of 1", "chat was well at 2", "table of 1", "table of 0"]);
    }
}
