//! Gauges that are read off the routing table at the time of a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::labels::{PriorityLabels, ReplicaLabels, StateLabels};
use crate::facts::Class;
use crate::live::{TableHandle, Target};

/// See the module.
pub(super) struct TableCollector {
    table: TableHandle,
}

impl TableCollector {
    pub(super) fn new(table: TableHandle) -> Self {
        Self { table }
    }
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableCollector")
    }
}

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(snapshot) = self.table.snapshot() else { return Ok(()) };
        let slots = |of: fn(&Target) -> i64| {
            let ready = snapshot.targets.iter().flatten().filter(|target| target.usable());
            ready.map(move |target| (ReplicaLabels::of(target), of(target)))
        };
        let total = slots(|target| i64::from(target.replica.slots_total));
        gauges(&mut encoder, "slots_total", "Slots of the replicas that serve", total)?;
        let free = slots(|target| target.free_slots().max(0));
        gauges(&mut encoder, "slots_free", "Slots that nobody uses through this gateway", free)?;
        let depths = Class::ALL.into_iter().map(|class| {
            let depth = self.table.admission().depth(class);
            (PriorityLabels { priority: class.label() }, i64::try_from(depth).unwrap_or(i64::MAX))
        });
        gauges(&mut encoder, "queue_depth", "Requests that wait for a slot", depths)?;
        let states = snapshot.instances().map(|(instance, _)| {
            let labels = StateLabels { model_id: instance.name.to_string(), state: instance.status.label() };
            (labels, 1)
        });
        gauges(&mut encoder, "model_state", "What each instance does", states)
    }
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (L, i64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
