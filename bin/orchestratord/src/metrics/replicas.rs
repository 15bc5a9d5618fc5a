//! What the pool manager has done for its replicas.

use std::fmt;

use pool_manager::ReplicaSnapshot;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;

use super::replica_labels;

/// Automatic restarts; a replica that never crashed shows that.
pub(super) fn restarts(
    encoder: &mut DescriptorEncoder<'_>,
    replicas: &[ReplicaSnapshot],
    node_id: &str,
) -> Result<(), fmt::Error> {
    let help = "Automatic restarts since the daemon began to look after the replica";
    let mut metric = encoder.encode_descriptor("instance_restarts", help, None, ConstCounter::<u64>::TYPE)?;
    for replica in replicas {
        let mut counts = replica.restarts_seen.clone();
        counts.entry("crash").or_default();
        for (reason, count) in counts {
            let mut labels = replica_labels(node_id, replica.instance.as_str(), replica.replica);
            labels.push(("reason".to_owned(), reason.to_owned()));
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
