//! The engines' own counters, with the names of who counted them.

use std::collections::BTreeMap;
use std::fmt;

use pool_manager::stats::ReplicaCounters;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::ConstCounter;

use super::{Labels, gauges, replica_labels};

/// `llamacpp_prompt_tokens_total` and its kin: under the engine's names, which hold a colon there.
pub(super) fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    replicas: &[ReplicaCounters],
    node_id: &str,
) -> Result<(), fmt::Error> {
    let mut by_name: BTreeMap<&str, Vec<(Labels, f64)>> = BTreeMap::new();
    for replica in replicas {
        for (series, count) in &replica.counts {
            let mut labels = replica_labels(node_id, replica.instance.as_str(), replica.replica);
            labels.extend(series.label.clone());
            by_name.entry(&series.name).or_default().push((labels, *count));
        }
    }
    for (name, series) in by_name {
        // The suffix is written by the encoder.
        let name = format!("llamacpp_{}", name.strip_suffix("_total").unwrap_or(name));
        let help = "Counted by the engines themselves, over all their restarts that were seen";
        let mut metric = encoder.encode_descriptor(&name, help, None, ConstCounter::<f64>::TYPE)?;
        for (labels, count) in series {
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Only engines of before 2026 tell it.
pub(super) fn kv_cache(
    encoder: &mut DescriptorEncoder<'_>,
    replicas: &[ReplicaCounters],
    node_id: &str,
) -> Result<(), fmt::Error> {
    let values = replicas.iter().filter_map(|replica| {
        let labels = replica_labels(node_id, replica.instance.as_str(), replica.replica);
        Some((labels, replica.kv_cache_usage?))
    });
    gauges(encoder, "kv_cache_usage_ratio", "How full the engine's context memory is", values)
}
