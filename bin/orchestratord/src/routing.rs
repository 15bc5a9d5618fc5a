//! From the pool manager's snapshots to the gateway's routing table.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway::{
    Loadable, Replica, ReplicaKey, RoutedInstance, RoutedNode, RoutingTable, TableHandle, hopelessness,
};
use orch_core::{DesiredState, InstanceName, ReplicaId, Status, UnixMillis};
use pool_manager::{BoxFuture, Demand, ReplicaSnapshot, RequestSigns, Traffic};

/// The gateway as the pool manager sees it.
pub(crate) struct GatewayTraffic {
    pub table: TableHandle,
    pub node_id: String,
    /// Held while a table is published, so that no older state overwrites a newer one.
    told: Mutex<Told>,
}

/// What a table is made of.
#[derive(Default)]
struct Told {
    /// Nothing before the node has told for the first time.
    replicas: Option<Vec<ReplicaSnapshot>>,
    /// What is under way goes on, and nothing new comes.
    cordoned: bool,
}

impl GatewayTraffic {
    pub(crate) fn new(table: TableHandle, node_id: String) -> Self {
        Self { table, node_id, told: Mutex::default() }
    }

    /// From when this returns, requests go to the engines of this node no more, or again.
    pub(crate) fn set_cordoned(&self, cordoned: bool) {
        let mut told = self.told();
        told.cordoned = cordoned;
        self.publish_told(&told);
    }

    pub(crate) fn is_cordoned(&self) -> bool {
        self.told().cordoned
    }

    /// It is replaced as a whole, so a panic elsewhere leaves nothing half done.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_told(&self, told: &Told) {
        let Some(replicas) = &told.replicas else { return };
        let mut instances: BTreeMap<InstanceName, RoutedInstance> = BTreeMap::new();
        for snapshot in replicas {
            let routed = instances.entry(snapshot.instance.clone()).or_insert_with(|| RoutedInstance {
                name: snapshot.instance.clone(),
                aliases: snapshot.aliases.clone(),
                status: snapshot.status,
                loadable: loadable(snapshot),
                created_at: snapshot.created_at,
                replicas: Vec::new(),
            });
            // The most hopeful replica speaks for the instance.
            if hopelessness(snapshot.status) < hopelessness(routed.status) {
                routed.status = snapshot.status;
            }
            routed.loadable = routed.loadable.max(loadable(snapshot));
            routed.replicas.extend(self.replica(snapshot, told.cordoned));
        }
        let home = RoutedNode { id: self.node_id.clone(), online: true };
        self.table.publish(RoutingTable::new(instances.into_values().collect()).with_nodes(vec![home]));
    }

    fn key(&self, instance: &InstanceName, replica: ReplicaId) -> ReplicaKey {
        ReplicaKey { node_id: self.node_id.clone(), pool_id: instance.to_string(), replica_id: replica }
    }

    /// Ends all requests to a replica now.
    pub(crate) fn cut(&self, instance: &InstanceName, replica: ReplicaId) {
        self.table.close_replica(&self.key(instance, replica));
    }

    fn replica(&self, snapshot: &ReplicaSnapshot, draining: bool) -> Option<Replica> {
        Some(Replica {
            key: self.key(&snapshot.instance, snapshot.replica),
            address: snapshot.address?,
            engine_version: snapshot.engine_version.clone(),
            api_key: snapshot.api_key.clone(),
            ready: snapshot.routable,
            draining,
            slots_total: snapshot.slots_total,
            slot_context: snapshot.context,
            device_mask: snapshot.device_mask.clone(),
            // Nobody measures it here yet: free slots and names decide.
            free_vram: None,
            last_good_probe: snapshot.last_good_probe,
        })
    }
}

impl Traffic for GatewayTraffic {
    fn publish(&self, replicas: Vec<ReplicaSnapshot>) {
        let mut told = self.told();
        told.replicas = Some(replicas);
        self.publish_told(&told);
    }

    fn probed(&self, instance: &InstanceName, replica: ReplicaId, at: UnixMillis) {
        self.table.note_good_probe(&self.key(instance, replica), at);
    }

    fn signs(&self, instance: &InstanceName, replica: ReplicaId) -> RequestSigns {
        let key = self.key(instance, replica);
        let signs = self.table.signs(&key);
        RequestSigns {
            in_flight: u32::try_from(self.table.busy_slots(&key)).unwrap_or(u32::MAX),
            progress: signs.progress,
            failures: signs.failures,
            last_status: signs.last_status,
        }
    }

    fn demand(&self) -> Vec<Demand> {
        let cordoned = self.is_cordoned();
        let demand = self.table.demand().into_iter().map(|it| Demand {
            instance: it.instance,
            // Nothing is loaded for requests that this node does not get.
            waiting: if cordoned { 0 } else { it.waiting },
            oldest_wait: it.oldest.map(|oldest| oldest.elapsed()),
            in_flight: it.in_flight,
            idle_for: it.last_used.map(|used| used.elapsed()),
        });
        demand.collect()
    }

    fn demand_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.table.demand_changed())
    }

    fn drain<'a>(
        &'a self,
        instance: &'a InstanceName,
        replica: ReplicaId,
        deadline: Duration,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _ = self.table.drain(&self.key(instance, replica), deadline).await;
        })
    }
}

/// What a request may hope for while the instance serves nobody.
fn loadable(snapshot: &ReplicaSnapshot) -> Loadable {
    match (snapshot.desired, snapshot.status) {
        (DesiredState::OnDemand, _) if snapshot.gave_up || snapshot.refused.is_some() => Loadable::No,
        (DesiredState::OnDemand, _) => Loadable::OnDemand,
        (DesiredState::Running, Status::Starting | Status::Running | Status::Stopping) => Loadable::Starting,
        _ => Loadable::No,
    }
}
