//! Instances that are wanted on demand: loaded when requests wait for them, unloaded when their place is needed.

use std::time::{Duration, Instant};

use orch_core::{DesiredState, RestartBackoff};

use super::{AfterStop, Effect, Lifecycle, Phase};

/// Between failed loads of an instance whose own policy never restarts: requests that wait must not load it over and
/// over.
const USUAL_BACKOFF: RestartBackoff = RestartBackoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(300),
    multiplier: 2.0,
    jitter: 0.1,
};

impl Lifecycle {
    pub(super) fn load(&mut self) -> Vec<Effect> {
        if self.desired != DesiredState::OnDemand {
            return Vec::new();
        }
        match self.phase {
            Phase::Stopped | Phase::GaveUp | Phase::Failed => {
                self.phase = Phase::Launching;
                self.health = orch_core::Health::Loading;
                self.load_after = None;
                self.asked = true;
                vec![Effect::Load]
            }
            Phase::Stopping { ref mut then } => {
                *then = AfterStop::Start;
                Vec::new()
            }
            Phase::Launching | Phase::Loading { .. } | Phase::Running { .. } | Phase::BackingOff { .. } => {
                Vec::new()
            }
        }
    }

    pub(super) fn unload(&mut self) -> Vec<Effect> {
        if self.desired != DesiredState::OnDemand || !matches!(self.phase, Phase::Running { .. }) {
            return Vec::new();
        }
        self.phase = Phase::Stopping { then: AfterStop::Rest };
        vec![Effect::Terminate { force: false }]
    }

    /// A load that failed, or a crash: the next request may load it again, after the back-off of its restart policy,
    /// and not more often in a row than that allows.
    pub(super) fn load_failed(&mut self, reason: &str, now: Instant, random: f64) -> Vec<Effect> {
        let backoff = self.policy.restart.unwrap_or(USUAL_BACKOFF);
        self.load_after = Some(now + backoff.delay(self.attempts, random));
        self.attempts = self.attempts.saturating_add(1);
        if self.gave_up_loading() {
            return vec![Effect::RecordGaveUp { reason: reason.to_owned() }];
        }
        Vec::new()
    }

    /// Whether it failed too often: nothing loads it until the next `up`.
    pub fn gave_up_loading(&self) -> bool {
        let allowed = self.policy.restart.map_or(u32::MAX, |_| self.policy.max_retries);
        self.desired == DesiredState::OnDemand
            && self.attempts > allowed
            && matches!(self.phase, Phase::GaveUp | Phase::Failed)
    }

    /// Since when it has been ready; `None` while it is not.
    pub fn ready_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { since, .. } => Some(since),
            _ => None,
        }
    }
}
