//! What probes and requests make of health, and when a living engine is beyond hope.

use std::time::{Duration, Instant};

use orch_core::Health;

use super::{Effect, LOADING_PROBE_FIRST, LOADING_PROBE_LAST, Lifecycle, Outcome, Phase, ProbeOutcome};

/// The ways that health may go while a process lives: unknown → loading → healthy ⇄ unhealthy → error. A process
/// begins at loading; when it is gone, health is unknown.
pub fn follows(from: Health, to: Health) -> bool {
    matches!(
        (from, to),
        (Health::Unknown, Health::Loading)
            | (Health::Loading | Health::Unhealthy, Health::Healthy)
            | (Health::Healthy, Health::Unhealthy)
            | (Health::Unhealthy, Health::Error)
    )
}

impl Lifecycle {
    pub(super) fn probed(&mut self, outcome: ProbeOutcome, now: Instant, random: f64) -> Vec<Effect> {
        match self.phase {
            Phase::Loading { since, last_progress } => {
                self.probed_loading(&outcome, now, since, last_progress)
            }
            Phase::Running { since, failed_probes } => {
                self.probed_running(outcome, now, since, failed_probes, random)
            }
            // An answer that comes late changes nothing.
            _ => Vec::new(),
        }
    }

    fn probed_loading(
        &mut self,
        outcome: &ProbeOutcome,
        now: Instant,
        since: Instant,
        last_progress: Instant,
    ) -> Vec<Effect> {
        if *outcome == ProbeOutcome::Healthy {
            return self.became_ready(now);
        }
        let progressed = matches!(outcome, ProbeOutcome::Loading { progressed: true });
        let last_progress = if progressed { now } else { last_progress };
        if now.duration_since(last_progress) >= self.policy.load_stall {
            let seconds = self.policy.load_stall.as_secs();
            return self.recover(format!("loading made no progress for {seconds} s"));
        }
        self.phase = Phase::Loading { since, last_progress };
        self.loading_probes = self.loading_probes.saturating_add(1);
        let delay = LOADING_PROBE_FIRST.saturating_mul(1 + self.loading_probes / 10).min(LOADING_PROBE_LAST);
        self.next_probe = Some(now + delay);
        Vec::new()
    }

    fn became_ready(&mut self, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Running { since: now, failed_probes: 0 };
        self.loading_again = None;
        self.unwell_probes = 0;
        self.next_probe = Some(now + self.policy.probe_interval);
        let mut effects = vec![Effect::RecordReady];
        effects.extend(self.turn(Health::Healthy, None));
        effects.push(Effect::Settle { outcome: Outcome::Ready });
        effects
    }

    fn probed_running(
        &mut self,
        outcome: ProbeOutcome,
        now: Instant,
        since: Instant,
        failed_probes: u32,
        random: f64,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.attempts > 0 && now.duration_since(since) >= self.policy.stable_after {
            self.attempts = 0;
            effects.push(Effect::RecordStable);
        }
        if matches!(outcome, ProbeOutcome::Loading { progressed: false }) {
            let begun = *self.loading_again.get_or_insert(now);
            if now.duration_since(begun) >= self.policy.load_stall {
                let seconds = self.policy.load_stall.as_secs();
                let reason = format!("it was ready and has not answered for {seconds} s");
                effects.extend(self.sicken(&reason));
                effects.extend(self.recover(reason));
                return effects;
            }
        } else {
            self.loading_again = None;
        }
        let (to, failed, reason) = match outcome {
            ProbeOutcome::Healthy => (Health::Healthy, 0, None),
            // Not what a ready engine says; but a busy system may refuse for a while.
            ProbeOutcome::Loading { .. } => {
                (Health::Unhealthy, failed_probes, Some("it refuses, or says that it loads".to_owned()))
            }
            ProbeOutcome::Failed { reason } if now.duration_since(since) < self.policy.start_period => {
                (Health::Unhealthy, 0, Some(reason))
            }
            ProbeOutcome::Failed { reason } => (Health::Unhealthy, failed_probes + 1, Some(reason)),
        };
        if failed >= self.policy.probe_retries {
            let reason = reason.unwrap_or_default();
            effects.extend(self.sicken(&reason));
            effects.extend(self.recover(format!("{failed} health checks failed in a row: {reason}")));
            return effects;
        }
        self.unwell_probes = if to == Health::Healthy { 0 } else { self.unwell_probes.saturating_add(1) };
        self.phase = Phase::Running { since, failed_probes: failed };
        self.next_probe = Some(now + self.next_probe_delay(random));
        effects.extend(self.turn(to, reason.as_deref()));
        effects
    }

    /// The interval while all is well; after a bad probe the retry delay, and from then on the back-off.
    fn next_probe_delay(&self, random: f64) -> Duration {
        match (self.unwell_probes, &self.policy.probe_backoff) {
            (0, _) => self.policy.probe_interval,
            (probes @ 2.., Some(backoff)) => backoff.delay(probes - 2, random),
            _ => self.policy.retry_delay,
        }
    }

    /// Goes along one arrow; a health that stays is nothing to tell.
    fn turn(&mut self, to: Health, reason: Option<&str>) -> Option<Effect> {
        let from = std::mem::replace(&mut self.health, to);
        (from != to).then(|| Effect::RecordHealth { from, to, reason: reason.map(str::to_owned) })
    }

    /// A ready engine is beyond hope.
    fn sicken(&mut self, reason: &str) -> Vec<Effect> {
        let arrows = [Health::Unhealthy, Health::Error];
        arrows.into_iter().filter_map(|to| self.turn(to, Some(reason))).collect()
    }

    /// Whether the engine says that it is well, past its start period: only then its use is in doubt.
    pub fn may_be_wedged(&self, now: Instant) -> bool {
        let Phase::Running { since, .. } = self.phase else { return false };
        self.health == Health::Healthy && now.duration_since(since) >= self.policy.start_period
    }

    /// As with failed probes, nothing counts so soon after the start.
    pub(super) fn wedged(&mut self, reason: &str, now: Instant) -> Vec<Effect> {
        let Phase::Running { since, .. } = self.phase else { return Vec::new() };
        if now.duration_since(since) < self.policy.start_period {
            return Vec::new();
        }
        let mut effects = self.sicken(reason);
        effects.extend(self.recover(reason.to_owned()));
        effects
    }
}
