//! From the pool manager's snapshots to the gateway's routing table.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use gateway::{Replica, ReplicaKey, RoutedInstance, RoutingTable, TableHandle};
use orch_core::{InstanceName, ReplicaId};
use pool_manager::{BoxFuture, ReplicaSnapshot, Traffic};

/// The gateway as the pool manager sees it.
pub(crate) struct GatewayTraffic {
    pub table: TableHandle,
    pub node_id: String,
}

impl GatewayTraffic {
    fn key(&self, instance: &InstanceName, replica: ReplicaId) -> ReplicaKey {
        ReplicaKey { node_id: self.node_id.clone(), pool_id: instance.to_string(), replica_id: replica }
    }

    /// Ends all requests to a replica now.
    pub(crate) fn cut(&self, instance: &InstanceName, replica: ReplicaId) {
        self.table.close_replica(&self.key(instance, replica));
    }

    fn replica(&self, snapshot: &ReplicaSnapshot) -> Option<Replica> {
        Some(Replica {
            key: self.key(&snapshot.instance, snapshot.replica),
            address: resolve(&snapshot.host, snapshot.port)?,
            api_key: snapshot.api_key.clone(),
            ready: snapshot.routable,
            draining: false,
            slots_total: snapshot.slots_total,
            slot_context: snapshot.context,
            last_good_probe: snapshot.last_good_probe,
        })
    }
}

impl Traffic for GatewayTraffic {
    fn publish(&self, replicas: Vec<ReplicaSnapshot>) {
        let mut instances: BTreeMap<InstanceName, RoutedInstance> = BTreeMap::new();
        for snapshot in &replicas {
            let routed = instances.entry(snapshot.instance.clone()).or_insert_with(|| RoutedInstance {
                name: snapshot.instance.clone(),
                aliases: snapshot.aliases.clone(),
                status: snapshot.status,
                created_at: snapshot.created_at,
                replicas: Vec::new(),
            });
            routed.replicas.extend(self.replica(snapshot).filter(|_| snapshot.port != 0));
        }
        self.table.publish(RoutingTable::new(instances.into_values().collect()));
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

/// The address of an engine. Hosts of engines are loopback literals nearly always; a name is looked up in the
/// system's table.
fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    (bare, port).to_socket_addrs().ok()?.next()
}
