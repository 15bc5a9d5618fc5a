//! The current truth about all replicas of this node, told to whoever routes requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use orch_core::{InstanceName, ReplicaId};

use crate::traffic::{ReplicaSnapshot, Traffic};

/// Collects the supervisors' snapshots and publishes the whole whenever one changes.
pub(crate) struct Board {
    traffic: Arc<dyn Traffic>,
    replicas: Mutex<BTreeMap<(InstanceName, ReplicaId), ReplicaSnapshot>>,
}

impl Board {
    pub(crate) fn new(traffic: Arc<dyn Traffic>) -> Self {
        Self { traffic, replicas: Mutex::default() }
    }

    pub(crate) fn traffic(&self) -> &dyn Traffic {
        &*self.traffic
    }

    /// Puts up one replica's state. When this returns, requests follow it.
    pub(crate) fn update(&self, snapshot: ReplicaSnapshot) {
        let key = (snapshot.instance.clone(), snapshot.replica);
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if replicas.get(&key) == Some(&snapshot) {
            return;
        }
        replicas.insert(key, snapshot);
        // Published under the lock, so that an older picture never overtakes a newer one.
        self.traffic.publish(replicas.values().cloned().collect());
    }

    /// Takes a replica off the board.
    pub(crate) fn remove(&self, instance: &InstanceName, replica: ReplicaId) {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if replicas.remove(&(instance.clone(), replica)).is_some() {
            self.traffic.publish(replicas.values().cloned().collect());
        }
    }

    /// Everything on the board.
    pub(crate) fn snapshots(&self) -> Vec<ReplicaSnapshot> {
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.values().cloned().collect()
    }
}
