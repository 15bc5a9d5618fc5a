//! How many jobs there are and how they ended.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use workflow::JobOutcome;

const OUTCOMES: [(JobOutcome, &str); 4] = [
    (JobOutcome::Succeeded, "succeeded"),
    (JobOutcome::Failed, "failed"),
    (JobOutcome::Cancelled, "cancelled"),
    (JobOutcome::Waiting, "waiting"),
];

/// Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobCounts {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: AtomicU64,
    queued: AtomicU64,
    ended: [AtomicU64; OUTCOMES.len()],
}

impl JobCounts {
    /// How many run, and how many wait for their turn.
    pub(super) fn set(&self, (running, queued): (usize, usize)) {
        self.inner.running.store(running as u64, Ordering::Relaxed);
        self.inner.queued.store(queued as u64, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, how: JobOutcome) {
        for (counter, (outcome, _)) in self.inner.ended.iter().zip(OUTCOMES) {
            counter.fetch_add(u64::from(outcome == how), Ordering::Relaxed);
        }
    }
}

impl Collector for JobCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Workflow jobs that are worked on or wait for their turn";
        let mut jobs = encoder.encode_descriptor("workflow_jobs", help, None, MetricType::Gauge)?;
        for (state, count) in [("running", &self.inner.running), ("queued", &self.inner.queued)] {
            // A gauge of this library is a fraction or signed; no count of jobs loses anything by that.
            let count = ConstGauge::new(count.load(Ordering::Relaxed) as f64);
            count.encode(jobs.encode_family(&[("state", state)])?)?;
        }
        let help = "Workflow jobs that this daemon has worked on, by how they ended";
        let kind = ConstCounter::<u64>::TYPE;
        let mut ended = encoder.encode_descriptor("workflow_jobs_ended", help, None, kind)?;
        for (counter, (_, outcome)) in self.inner.ended.iter().zip(OUTCOMES) {
            let count = ConstCounter::new(counter.load(Ordering::Relaxed));
            count.encode(ended.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}
