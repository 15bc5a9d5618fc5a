//! Whether a ready engine is of use: requests are looked at, and where they give ground for suspicion a canary is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orch_core::{Health, InstanceName, ReplicaId};
use orch_runtime::probe_get;

use super::{Job, Supervisor};
use crate::board::Board;
use crate::completion::{Completion, complete_once};
use crate::lifecycle::{Event, Phase};
use crate::probe::Prober;
use crate::suspicion::{Ground, Inquiry, Look, Patience, Suspicion};

/// Time between two looks, or the health-check timeout where that is shorter. A look asks the engine nothing.
const LOOK_PACE: Duration = Duration::from_secs(1);
const CANARY: &str = "Hello";

/// The watch over one engine process.
pub(super) struct Watch {
    suspicion: Suspicion,
    next_look: Instant,
    pub(super) inquiry: Option<Job<Inquiry>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { suspicion: Suspicion::default(), next_look: Instant::now() + LOOK_PACE, inquiry: None }
    }
}

impl Supervisor {
    /// When requests are looked at next: not while there is nothing to suspect, or a canary is on its way.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let is_ready = matches!(self.machine.phase, Phase::Running { .. });
        (is_ready && self.watch.inquiry.is_none()).then_some(self.watch.next_look)
    }

    pub(super) fn look_at_requests(&mut self) {
        let now = Instant::now();
        let timeout = self.instance.config.healthcheck.timeout;
        self.watch.next_look = now + LOOK_PACE.min(timeout);
        let Some(engine) = self.engine.as_ref().filter(|_| self.machine.may_be_wedged(now)) else { return };
        let eyes = Eyes {
            board: Arc::clone(&self.board),
            instance: self.name().clone(),
            replica: self.replica,
            pid: engine.identity.pid,
            slots_total: engine.facts.map_or(1, |facts| facts.slots_total),
            prober: engine.prober.clone(),
        };
        let patience = Patience::of(timeout);
        let Some(ground) = self.watch.suspicion.look(eyes.glance(), &patience, now) else { return };
        tracing::info!(instance = %self.name(), "{}; asking for one token", ground.told());
        self.watch.inquiry = Some(Box::pin(eyes.inquire(ground, patience.canary)));
    }

    pub(super) async fn inquired(&mut self, inquiry: Inquiry) {
        let patience = Patience::of(self.instance.config.healthcheck.timeout);
        let Some(reason) = self.watch.suspicion.judge(&inquiry, &patience, Instant::now()) else {
            tracing::info!(instance = %self.name(), outcome = ?inquiry.completion, "the suspicion was wrong");
            return;
        };
        self.step(Event::Wedged { reason: reason.clone() }).await;
        if self.machine.health == Health::Error {
            let took = inquiry.took;
            self.record(move |recorder| recorder.health_check(Health::Error, took, Some(&reason))).await;
        }
    }
}

/// What is looked at, for a look that may take longer than the supervisor can wait.
struct Eyes {
    board: Arc<Board>,
    instance: InstanceName,
    replica: ReplicaId,
    pid: u32,
    slots_total: u32,
    prober: Prober,
}

impl Eyes {
    /// A look that costs next to nothing while nobody wants anything of the engine.
    fn glance(&self) -> Look {
        let signs = self.board.traffic().signs(&self.instance, self.replica);
        if signs.in_flight > 0 {
            return self.look();
        }
        Look { signs, slots_total: self.slots_total, processor_time: None }
    }

    fn look(&self) -> Look {
        Look {
            signs: self.board.traffic().signs(&self.instance, self.replica),
            slots_total: self.slots_total,
            processor_time: engine_process::usage(self.pid).map(|usage| usage.processor_time),
        }
    }

    async fn inquire(self, ground: Ground, limit: Duration) -> Inquiry {
        let slots = self.slots().await;
        let before = self.look();
        let begun = Instant::now();
        let completion = complete_once(&self.prober, CANARY, limit).await;
        let took = begun.elapsed();
        let after = self.look();
        let slots_moved = completion == Completion::Silent
            && self.slots().await.is_some_and(|now| slots.is_none_or(|before| before != now));
        Inquiry { ground, completion, before, after, took, slots_moved }
    }

    /// The engine's own account of its slots. Asking for it wakes an engine that sleeps; one that requests are sent
    /// to does not.
    async fn slots(&self) -> Option<Bytes> {
        let Prober { host, port, api_key, check, .. } = &self.prober;
        let answer = probe_get(host, *port, "/slots", api_key.as_deref(), check.timeout).await.ok()?;
        (answer.status == 200).then_some(answer.body)
    }
}
