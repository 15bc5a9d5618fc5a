//! What the daemon knows, as metrics beside the gateway's own. A metric whose source does not exist is absent, never zero.

mod devices;
mod engines;
mod replicas;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gateway::MetricsRegistry;
use pool_manager::PoolManager;
use pool_manager::stats::{DeviceUsage, Devices, EngineCounters, ReplicaCounters};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::request_log::LogHealth;

/// Where the metrics of one scrape come from. Engines and drivers are asked when somebody scrapes and never in between.
#[derive(Clone)]
pub(crate) struct Readings {
    manager: PoolManager,
    node_id: Arc<str>,
    engines: EngineCounters,
    devices: Devices,
    log: LogHealth,
    last: Arc<Mutex<Told>>,
}

/// What engines and drivers told at the latest scrape.
#[derive(Clone, Debug, Default)]
struct Told {
    engines: Vec<ReplicaCounters>,
    devices: Vec<DeviceUsage>,
}

impl Readings {
    pub(crate) fn new(manager: PoolManager, node_id: &str, log: LogHealth) -> Self {
        Self {
            manager,
            node_id: node_id.into(),
            engines: EngineCounters::default(),
            devices: Devices::default(),
            log,
            last: Arc::default(),
        }
    }

    /// A registry that shows these readings.
    pub(crate) fn registry(&self) -> MetricsRegistry {
        let mut registry = MetricsRegistry::default();
        registry.register_collector(Box::new(self.clone()));
        registry
    }

    /// Asks everybody, for the scrape that follows.
    pub(crate) async fn refresh(&self) {
        let replicas = self.manager.snapshots();
        let (engines, devices) = tokio::join!(self.engines.read(&replicas), self.devices.read());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Told { engines, devices };
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readings")
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let told = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The one node that is linked in is there as long as we are.
        let help = "Nodes that can be reached";
        let nodes = encoder.encode_descriptor("orchd_nodes_online", help, None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(nodes)?;
        let help = "Requests that are missing from the request log";
        let lost = encoder.encode_descriptor("request_log_lost", help, None, ConstCounter::<u64>::TYPE)?;
        ConstCounter::new(self.log.lost()).encode(lost)?;
        replicas::restarts(&mut encoder, &self.manager.snapshots(), &self.node_id)?;
        engines::counters(&mut encoder, &told.engines, &self.node_id)?;
        engines::kv_cache(&mut encoder, &told.engines, &self.node_id)?;
        devices::memory(&mut encoder, &told.devices)?;
        devices::utilization(&mut encoder, &told.devices)
    }
}

/// Names and values.
type Labels = Vec<(String, String)>;

/// The labels of one replica.
fn replica_labels(node_id: &str, instance: &str, replica: impl fmt::Display) -> Labels {
    [("node_id", node_id.to_owned()), ("pool_id", instance.to_owned()), ("replica_id", replica.to_string())]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

/// One gauge in all its series; nothing at all when there is none.
fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), fmt::Error> {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
