//! What the pool manager knows, as metrics beside the gateway's own.

use gateway::MetricsRegistry;
use pool_manager::{PoolManager, ReplicaSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;

/// A registry that tells the restarts of every replica at each scrape.
pub(crate) fn registry(manager: PoolManager) -> MetricsRegistry {
    let mut registry = MetricsRegistry::default();
    registry.register_collector(Box::new(Replicas { manager }));
    registry
}

struct Replicas {
    manager: PoolManager,
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replicas")
    }
}

impl Collector for Replicas {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        encode_restarts(&mut encoder, &self.manager.snapshots())
    }
}

fn encode_restarts(
    encoder: &mut DescriptorEncoder<'_>,
    replicas: &[ReplicaSnapshot],
) -> Result<(), std::fmt::Error> {
    let help = "automatic restarts since the daemon began to look after the replica";
    let mut metric = encoder.encode_descriptor("instance_restarts", help, None, ConstCounter::<u64>::TYPE)?;
    for replica in replicas {
        let labels = [
            ("pool_id", replica.instance.to_string()),
            ("replica_id", replica.replica.to_string()),
            ("reason", "policy".to_owned()),
        ];
        ConstCounter::new(replica.restarts_seen).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
