//! What the gateway counts. A metric whose source does not exist is absent, never zero.

mod labels;
mod table;

use std::fmt;
use std::sync::OnceLock;

use llm_adapters::Usage;
use orch_core::ErrorCode;
use orch_runtime::FullPolicy;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
/// Where a daemon registers its own metrics before it hands the registry to the gateway.
pub use prometheus_client::registry::Registry as MetricsRegistry;

use self::labels::{EndLabels, PolicyLabels, PriorityLabels, ReplicaLabels, TaskLabels};
use self::table::TableCollector;
use crate::facts::Class;
use crate::live::{TableHandle, Target};

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
    enqueued: Family<PriorityLabels, Counter>,
    backpressure: Family<PolicyLabels, Counter>,
    queued: Family<PriorityLabels, Histogram>,
    started: Family<TaskLabels, Counter>,
    canceled: Family<EndLabels, Counter>,
    rejected: Family<EndLabels, Counter>,
    tokens_in: Family<ReplicaLabels, Counter>,
    tokens_out: Family<ReplicaLabels, Counter>,
    tokens_cached: Family<ReplicaLabels, Counter>,
    first_token: Family<TaskLabels, Histogram>,
    decode: Family<TaskLabels, Histogram>,
    overhead: Histogram,
}

/// The metrics of one replica, looked up once for each table.
pub(crate) struct ReplicaMetrics {
    tokens_in: Counter,
    tokens_out: Counter,
    tokens_cached: Counter,
    interactive: OnceLock<TaskMetrics>,
    batch: OnceLock<TaskMetrics>,
}

/// Those of its requests of one class.
pub(crate) struct TaskMetrics {
    pub(crate) started: Counter,
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
            enqueued: Family::default(),
            backpressure: Family::default(),
            queued: Family::new_with_constructor(milliseconds),
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
        // Nobody has waited yet, which is known.
        for class in Class::ALL {
            drop(metrics.enqueued.get_or_create(&PriorityLabels { priority: class.label() }));
        }
        registry.register("tasks_enqueued", "Requests that had to wait", metrics.enqueued.clone());
        registry.register(
            "admission_backpressure_events",
            "Requests that met a full queue",
            metrics.backpressure.clone(),
        );
        registry.register("latency_queue_ms", "From the wish for a slot to the slot", metrics.queued.clone());
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
        registry.register(
            "placement_decisions",
            "Choices of a replica, those for further attempts included",
            table.chooser().decisions().counts(),
        );
        registry.register_collector(Box::new(TableCollector::new(table)));
        Self { registry, ..metrics }
    }

    pub(crate) fn of<'t>(&self, target: &'t Target) -> &'t ReplicaMetrics {
        target.metrics.get_or_init(|| {
            let labels = ReplicaLabels::of(target);
            ReplicaMetrics {
                tokens_in: self.tokens_in.get_or_create_owned(&labels),
                tokens_out: self.tokens_out.get_or_create_owned(&labels),
                tokens_cached: self.tokens_cached.get_or_create_owned(&labels),
                interactive: OnceLock::new(),
                batch: OnceLock::new(),
            }
        })
    }

    /// Those of the requests of one class on one replica.
    pub(crate) fn tasks<'t>(&self, target: &'t Target, class: Class) -> &'t TaskMetrics {
        let replica = self.of(target);
        let of_class = match class {
            Class::Interactive => &replica.interactive,
            Class::Batch => &replica.batch,
        };
        of_class.get_or_init(|| {
            let labels = TaskLabels { replica: ReplicaLabels::of(target), priority: class.label() };
            TaskMetrics {
                started: self.started.get_or_create_owned(&labels),
                first_token: self.first_token.get_or_create_owned(&labels),
                decode: self.decode.get_or_create_owned(&labels),
            }
        })
    }

    pub(crate) fn rejected(&self, code: ErrorCode, class: Class) {
        self.rejected.get_or_create(&EndLabels { reason: code.label(), priority: class.label() }).inc();
    }

    pub(crate) fn enqueued(&self, class: Class) {
        self.enqueued.get_or_create(&PriorityLabels { priority: class.label() }).inc();
    }

    pub(crate) fn queued_for(&self, time: std::time::Duration, class: Class) {
        let labels = PriorityLabels { priority: class.label() };
        self.queued.get_or_create(&labels).observe(time.as_secs_f64() * 1e3);
    }

    /// A request met a full queue.
    pub(crate) fn backpressure(&self, policy: FullPolicy) {
        let policy = match policy {
            FullPolicy::Reject => "reject",
            FullPolicy::DropLru => "drop-lru",
        };
        self.backpressure.get_or_create(&PolicyLabels { policy }).inc();
    }

    pub(crate) fn canceled(&self, reason: CancelReason, class: Class) {
        self.canceled.get_or_create(&EndLabels { reason: reason.label(), priority: class.label() }).inc();
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
