//! What the gateway counts. A metric whose source does not exist is absent, never zero.

use std::fmt;

use llm_adapters::Usage;
use orch_core::ErrorCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
/// Where a daemon registers its own metrics before it hands the registry to the gateway.
pub use prometheus_client::registry::Registry as MetricsRegistry;

use crate::live::{TableHandle, Target};

/// Labels of one replica. Bounded, because only known replicas have them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the fields are the label names of the contract")]
struct ReplicaLabels {
    node_id: String,
    pool_id: String,
    replica_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Why a request that had been dispatched ended without its whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelReason {
    ClientGone,
    Failed(ErrorCode),
}

impl CancelReason {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            CancelReason::ClientGone => "client_gone",
            CancelReason::Failed(code) => code.label(),
        }
    }
}

/// The metrics of one gateway.
pub(crate) struct Metrics {
    registry: MetricsRegistry,
    started: Family<ReplicaLabels, Counter>,
    canceled: Family<ReasonLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    tokens_in: Family<ReplicaLabels, Counter>,
    tokens_out: Family<ReplicaLabels, Counter>,
    tokens_cached: Family<ReplicaLabels, Counter>,
    first_token: Family<ReplicaLabels, Histogram>,
    decode: Family<ReplicaLabels, Histogram>,
    overhead: Histogram,
}

/// The metrics of one replica, looked up once for each table.
pub(crate) struct ReplicaMetrics {
    pub(crate) started: Counter,
    tokens_in: Counter,
    tokens_out: Counter,
    tokens_cached: Counter,
    pub(crate) first_token: Histogram,
    pub(crate) decode: Histogram,
}

impl ReplicaMetrics {
    /// Adds what an answer said about itself; what it did not say is not added as zero.
    pub(crate) fn count_tokens(&self, usage: &Usage) {
        for (counter, count) in [
            (&self.tokens_in, usage.prompt_tokens),
            (&self.tokens_out, usage.completion_tokens),
            (&self.tokens_cached, usage.cached_tokens),
        ] {
            if let Some(count) = count {
                counter.inc_by(count);
            }
        }
    }
}

impl Metrics {
    pub(crate) fn new(mut registry: MetricsRegistry, table: TableHandle) -> Self {
        let metrics = Self {
            started: Family::default(),
            canceled: Family::default(),
            rejected: Family::default(),
            tokens_in: Family::default(),
            tokens_out: Family::default(),
            tokens_cached: Family::default(),
            first_token: Family::new_with_constructor(milliseconds),
            decode: Family::new_with_constructor(milliseconds),
            overhead: Histogram::new(exponential_buckets(5.0, 2.0, 14)),
            registry: MetricsRegistry::default(),
        };
        registry.register("tasks_started", "Requests handed to an engine", metrics.started.clone());
        registry.register(
            "tasks_canceled",
            "Requests that ended without a whole answer",
            metrics.canceled.clone(),
        );
        registry.register(
            "tasks_rejected",
            "Requests refused before an answer began",
            metrics.rejected.clone(),
        );
        registry.register(
            "tokens_in",
            "Prompt tokens, those from the cache included",
            metrics.tokens_in.clone(),
        );
        registry.register("tokens_out", "Generated tokens", metrics.tokens_out.clone());
        registry.register("tokens_cached", "Prompt tokens from the cache", metrics.tokens_cached.clone());
        registry.register(
            "latency_first_token_ms",
            "From the hand-over to the engine to the first token of a stream",
            metrics.first_token.clone(),
        );
        registry.register("latency_decode_ms", "Time spent generating", metrics.decode.clone());
        registry.register(
            "gateway_overhead_us",
            "From a request's last byte to its hand-over to the engine",
            metrics.overhead.clone(),
        );
        registry.register_collector(Box::new(TableCollector { table }));
        Self { registry, ..metrics }
    }

    pub(crate) fn of<'t>(&self, target: &'t Target) -> &'t ReplicaMetrics {
        target.metrics.get_or_init(|| {
            let labels = labels(target);
            ReplicaMetrics {
                started: self.started.get_or_create_owned(&labels),
                tokens_in: self.tokens_in.get_or_create_owned(&labels),
                tokens_out: self.tokens_out.get_or_create_owned(&labels),
                tokens_cached: self.tokens_cached.get_or_create_owned(&labels),
                first_token: self.first_token.get_or_create_owned(&labels),
                decode: self.decode.get_or_create_owned(&labels),
            }
        })
    }

    pub(crate) fn rejected(&self, code: ErrorCode) {
        self.rejected.get_or_create(&ReasonLabels { reason: code.label() }).inc();
    }

    pub(crate) fn canceled(&self, reason: CancelReason) {
        self.canceled.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
    }

    pub(crate) fn handed_over(&self, after: std::time::Duration) {
        self.overhead.observe(after.as_secs_f64() * 1e6);
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 18))
}

fn labels(target: &Target) -> ReplicaLabels {
    let key = &target.replica.key;
    ReplicaLabels {
        node_id: key.node_id.clone(),
        pool_id: key.pool_id.clone(),
        replica_id: key.replica_id.to_string(),
    }
}

/// Gauges that are read off the routing table at the time of a scrape.
struct TableCollector {
    table: TableHandle,
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableCollector")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    model_id: String,
    state: &'static str,
}

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(snapshot) = self.table.snapshot() else { return Ok(()) };
        let slots = |of: fn(&Target) -> i64| {
            let ready = snapshot.targets.iter().flatten().filter(|target| target.usable());
            ready.map(move |target| (labels(target), of(target)))
        };
        let total = slots(|target| i64::from(target.replica.slots_total));
        gauges(&mut encoder, "slots_total", "Slots of the replicas that serve", total)?;
        let free = slots(|target| target.free_slots().max(0));
        gauges(&mut encoder, "slots_free", "Slots that nobody uses through this gateway", free)?;
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
