//! The life of one replica as a pure state machine: `step(event, now) → effects`.
//!
//! It owns no clock, no process and no file. The supervisor feeds it events, one at a time, and carries out
//! the effects; everything that decides whether a model restarts, waits or gives up is in this file.

mod health;
mod on_demand;
mod vocabulary;

use std::time::{Duration, Instant};

pub use health::follows;
use orch_core::{DesiredState, ExitCode, Failure, Health, Status};
pub use vocabulary::{AfterStop, Effect, Event, Outcome, Phase, Policy, ProbeOutcome, Retry};

/// Time between two probes while an engine loads: short at first, because small models are ready at once.
const LOADING_PROBE_FIRST: Duration = Duration::from_millis(50);
const LOADING_PROBE_LAST: Duration = Duration::from_millis(500);

/// The state machine of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle {
    pub policy: Policy,
    pub desired: DesiredState,
    pub phase: Phase,
    pub health: Health,
    /// Automatic restarts in a row: the exponent of the back-off.
    pub attempts: u32,
    /// When the next probe is due; `None` while one is running or none is wanted.
    next_probe: Option<Instant>,
    loading_probes: u32,
    /// Whether somebody asked for the launch under way, and is told when it is refused.
    asked: bool,
    /// It is to go for good: its wishes are not the instance's.
    retired: bool,
    /// Probes in a row that found a ready engine unwell, whether they count towards a restart or not.
    unwell_probes: u32,
    /// Since when an engine that was ready answers as if it loaded; a refused port looks the same.
    loading_again: Option<Instant>,
    /// An instance that is wanted on demand and failed is not loaded again before then.
    pub load_after: Option<Instant>,
}

impl Lifecycle {
    pub fn new(policy: Policy, desired: DesiredState, attempts: u32) -> Self {
        Self {
            policy,
            desired,
            phase: Phase::Stopped,
            health: Health::Unknown,
            attempts,
            next_probe: None,
            loading_probes: 0,
            asked: false,
            retired: false,
            unwell_probes: 0,
            loading_again: None,
            load_after: None,
        }
    }

    /// What people see of the phase.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Stopped => Status::Stopped,
            Phase::Launching | Phase::Loading { .. } | Phase::BackingOff { .. } => Status::Starting,
            Phase::Running { .. } => Status::Running,
            Phase::Stopping { .. } => Status::Stopping,
            Phase::GaveUp => Status::Crashed,
            Phase::Failed => Status::Error,
        }
    }

    /// Whether requests may be sent to it.
    pub fn is_routable(&self) -> bool {
        matches!(self.phase, Phase::Running { .. }) && self.health != Health::Error
    }

    /// Whether somebody asked for the launch under way; otherwise it is the reconciler's own.
    pub fn was_asked(&self) -> bool {
        self.asked
    }

    /// Whether the policy would start it again after a crash.
    pub fn has_restarts_left(&self) -> bool {
        self.policy.restart.is_some() && self.attempts < self.policy.max_retries
    }

    /// When [`Event::Tick`] is next due.
    pub fn next_tick(&self) -> Option<Instant> {
        match self.phase {
            Phase::BackingOff { until } => Some(until),
            Phase::Loading { .. } | Phase::Running { .. } => self.next_probe,
            _ => None,
        }
    }

    /// Takes one event. `random` in 0…1 feeds the jitter.
    pub fn step(&mut self, event: Event, now: Instant, random: f64) -> Vec<Effect> {
        match event {
            Event::Up { desired } => self.up(desired),
            Event::Down { force } => self.down(force),
            Event::Restart { desired, force } => self.restart(desired, force),
            Event::Retire => self.retire(),
            Event::Load => self.load(),
            Event::Unload => self.unload(),
            Event::Wanted => self.wanted(),
            Event::Adopted { ready, age } => self.adopted(ready, age, now),
            Event::FoundDead { reason } => self.after_crash(&reason, now, random),
            Event::FoundForeign { reason } => self.found_foreign(reason, now, random),
            Event::Launched => self.launched(now),
            Event::LaunchFailed { failure, desired } => self.launch_failed(failure, desired, now, random),
            Event::Probed { outcome } => self.probed(outcome, now, random),
            Event::Wedged { reason } => self.wedged(&reason, now),
            Event::Exited { reason } => self.exited(reason, now, random),
            Event::Terminated { result } => self.terminated(result, now, random),
            Event::Tick => self.tick(now),
            Event::PolicyChanged { policy } => {
                self.policy = *policy;
                Vec::new()
            }
        }
    }

    fn up(&mut self, desired: DesiredState) -> Vec<Effect> {
        self.retired = false;
        match self.phase {
            Phase::Stopped | Phase::GaveUp | Phase::Failed | Phase::BackingOff { .. } => {
                self.desired = desired;
                self.launch(desired)
            }
            Phase::Stopping { ref mut then } => {
                *then = AfterStop::Start;
                self.desired = desired;
                vec![Effect::RecordDesired { desired }]
            }
            Phase::Launching | Phase::Loading { .. } | Phase::Running { .. } => {
                self.desired = desired;
                vec![Effect::RecordDesired { desired }]
            }
        }
    }

    /// Only where nothing is there or under way; everything else is on its way already, or has given up.
    fn wanted(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Stopped | Phase::Failed if self.desired == DesiredState::Running => {
                let effects = self.launch(self.desired);
                self.asked = false;
                effects
            }
            _ => Vec::new(),
        }
    }

    fn launch(&mut self, desired: DesiredState) -> Vec<Effect> {
        self.attempts = 0;
        self.load_after = None;
        self.asked = true;
        self.phase = Phase::Launching;
        self.health = Health::Loading;
        vec![Effect::Launch { by_policy: false, desired }]
    }

    fn down(&mut self, force: bool) -> Vec<Effect> {
        self.desired = DesiredState::Stopped;
        match self.phase {
            Phase::Loading { .. } | Phase::Running { .. } => {
                self.phase = Phase::Stopping { then: AfterStop::Rest };
                // The wish first: whatever becomes of the stop, it stands.
                vec![Effect::RecordDesired { desired: DesiredState::Stopped }, Effect::Terminate { force }]
            }
            // The launch is not interrupted half-way; `launched` sees the wish and stops at once.
            Phase::Launching => vec![Effect::RecordDesired { desired: DesiredState::Stopped }],
            Phase::Stopping { ref mut then } => {
                *then = AfterStop::Rest;
                let mut effects = vec![Effect::RecordDesired { desired: DesiredState::Stopped }];
                effects.extend(force.then_some(Effect::Hasten));
                effects
            }
            // A command that began before this loop may have started an engine it has not heard of: only a look under
            // the instance's lock tells that nothing is there to stop.
            Phase::Stopped | Phase::BackingOff { .. } | Phase::GaveUp | Phase::Failed => {
                self.phase = Phase::Stopping { then: AfterStop::Rest };
                self.health = Health::Unknown;
                vec![Effect::RecordDesired { desired: DesiredState::Stopped }, Effect::Terminate { force }]
            }
        }
    }

    /// As a polite stop, of which nothing is remembered.
    fn retire(&mut self) -> Vec<Effect> {
        self.retired = true;
        let mut effects = self.down(false);
        effects.retain(|effect| !matches!(effect, Effect::RecordDesired { .. }));
        effects
    }

    fn restart(&mut self, desired: DesiredState, force: bool) -> Vec<Effect> {
        self.retired = false;
        match self.phase {
            Phase::Loading { .. } | Phase::Running { .. } => {
                self.desired = desired;
                self.phase = Phase::Stopping { then: AfterStop::Start };
                vec![Effect::RecordDesired { desired }, Effect::Terminate { force }]
            }
            _ => self.up(desired),
        }
    }

    fn adopted(&mut self, ready: bool, age: Duration, now: Instant) -> Vec<Effect> {
        self.next_probe = Some(now);
        self.unwell_probes = 0;
        self.loading_again = None;
        if ready {
            // A clock that began after the engine cannot tell how long ago that was.
            let since = now.checked_sub(age).unwrap_or(now);
            self.phase = Phase::Running { since, failed_probes: 0 };
            self.health = Health::Healthy;
            vec![Effect::RecordReady, Effect::Settle { outcome: Outcome::Ready }]
        } else {
            self.phase = Phase::Loading { since: now, last_progress: now };
            self.health = Health::Loading;
            Vec::new()
        }
    }

    fn launched(&mut self, now: Instant) -> Vec<Effect> {
        if self.desired == DesiredState::Stopped {
            self.phase = Phase::Stopping { then: AfterStop::Rest };
            // The launch may have written the older wish down after the newer one.
            let again = Effect::RecordDesired { desired: DesiredState::Stopped };
            let again = (!self.retired).then_some(again);
            return again.into_iter().chain([Effect::Terminate { force: false }]).collect();
        }
        self.phase = Phase::Loading { since: now, last_progress: now };
        self.health = Health::Loading;
        self.loading_probes = 0;
        self.next_probe = Some(now + LOADING_PROBE_FIRST);
        Vec::new()
    }

    fn launch_failed(
        &mut self,
        failure: Failure,
        desired: DesiredState,
        now: Instant,
        random: f64,
    ) -> Vec<Effect> {
        if self.desired == DesiredState::Stopped {
            self.phase = Phase::Stopped;
            self.health = Health::Unknown;
            return vec![
                Effect::RecordStartFailed { failure, retry: None },
                Effect::RecordStopped,
                Effect::Settle { outcome: Outcome::Stopped },
            ];
        }
        self.desired = desired;
        self.health = Health::Unknown;
        let failed = Effect::Settle { outcome: Outcome::Failed(failure.clone()) };
        // A user who waits is refused at once, and mends what is wrong. Whoever holds the port may let it go by itself.
        let final_word = self.asked && failure.exit != ExitCode::PortInUse;
        if final_word || desired != DesiredState::Running || self.policy.restart.is_none() {
            self.phase = Phase::Failed;
            let reason = failure.message.clone();
            let mut effects = vec![Effect::RecordStartFailed { failure, retry: None }];
            if desired == DesiredState::OnDemand {
                effects.extend(self.load_failed(&reason, now, random));
            }
            effects.push(failed);
            return effects;
        }
        let retry = self.plan_retry(now, random);
        let reason = failure.message.clone();
        let mut effects = vec![Effect::RecordStartFailed { failure, retry }];
        if retry.is_none() {
            effects.push(self.give_up(reason));
        }
        effects.push(failed);
        effects
    }

    /// Ends a sick engine; what follows is decided when it is gone.
    fn recover(&mut self, reason: String) -> Vec<Effect> {
        self.phase = Phase::Stopping { then: AfterStop::Recover };
        self.next_probe = None;
        self.loading_again = None;
        vec![Effect::RecordSick { reason }, Effect::Terminate { force: false }]
    }

    fn exited(&mut self, reason: String, now: Instant, random: f64) -> Vec<Effect> {
        let since = match self.phase {
            Phase::Loading { .. } => None,
            Phase::Running { since, .. } => Some(since),
            // While stopping, the stop itself reports; otherwise there was no process to lose.
            _ => return Vec::new(),
        };
        if since.is_some_and(|since| now.duration_since(since) >= self.policy.stable_after) {
            self.attempts = 0;
        }
        let mut effects = self.after_crash(&reason, now, random);
        let failure = Failure::new(ExitCode::StartFailed, reason);
        effects.push(Effect::Settle { outcome: Outcome::Failed(failure) });
        effects
    }

    fn after_crash(&mut self, reason: &str, now: Instant, random: f64) -> Vec<Effect> {
        self.next_probe = None;
        self.health = Health::Unknown;
        match self.desired {
            DesiredState::Running => self.schedule_restart(reason, now, random),
            // The next request loads it again.
            DesiredState::OnDemand => {
                self.phase = Phase::GaveUp;
                self.load_failed(reason, now, random)
            }
            DesiredState::Stopped => {
                self.phase = Phase::Stopped;
                vec![Effect::RecordStopped]
            }
        }
    }

    fn found_foreign(&mut self, reason: String, now: Instant, random: f64) -> Vec<Effect> {
        self.next_probe = None;
        self.health = Health::Unknown;
        if self.desired != DesiredState::Running {
            self.phase = Phase::Stopped;
            return vec![Effect::RecordForeign { reason, retry: None }];
        }
        let retry = self.plan_retry(now, random);
        let mut effects = vec![Effect::RecordForeign { reason: reason.clone(), retry }];
        if retry.is_none() {
            effects.push(self.give_up(reason));
        }
        effects
    }

    fn schedule_restart(&mut self, reason: &str, now: Instant, random: f64) -> Vec<Effect> {
        match self.plan_retry(now, random) {
            Some(retry) => vec![Effect::RecordRestartScheduled { retry }],
            None => vec![self.give_up(reason.to_owned())],
        }
    }

    /// The next automatic restart; `None` when the policy is off or has tried often enough.
    fn plan_retry(&mut self, now: Instant, random: f64) -> Option<Retry> {
        let backoff = self.policy.restart.filter(|_| self.has_restarts_left())?;
        let delay = backoff.delay(self.attempts, random);
        self.attempts += 1;
        self.phase = Phase::BackingOff { until: now + delay };
        Some(Retry { attempt: self.attempts, delay })
    }

    fn give_up(&mut self, reason: String) -> Effect {
        self.phase = Phase::GaveUp;
        Effect::RecordGaveUp { reason }
    }

    fn terminated(&mut self, result: Result<(), Failure>, now: Instant, random: f64) -> Vec<Effect> {
        let Phase::Stopping { then } = self.phase else { return Vec::new() };
        if let Err(failure) = result {
            // The process is still there: go on watching it. One that was sick, or had never been ready, has to
            // show that it is well.
            if matches!(self.health, Health::Healthy | Health::Unhealthy) {
                self.phase = Phase::Running { since: now, failed_probes: 0 };
            } else {
                self.phase = Phase::Loading { since: now, last_progress: now };
                self.health = Health::Loading;
            }
            self.next_probe = Some(now + self.policy.probe_interval);
            return vec![
                Effect::RecordStopFailed { failure: failure.clone() },
                Effect::Settle { outcome: Outcome::Failed(failure) },
            ];
        }
        self.health = Health::Unknown;
        match then {
            AfterStop::Rest => {
                self.phase = Phase::Stopped;
                vec![Effect::RecordStopped, Effect::Settle { outcome: Outcome::Stopped }]
            }
            AfterStop::Start => {
                let mut effects = vec![Effect::RecordStopped];
                effects.extend(self.launch(self.desired));
                effects
            }
            AfterStop::Recover => {
                let reason = "the engine was ended because it was sick";
                let mut effects = self.after_crash(reason, now, random);
                let failure = Failure::new(ExitCode::StartFailed, reason);
                effects.push(Effect::Settle { outcome: Outcome::Failed(failure) });
                effects
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::BackingOff { until } if now >= until => {
                self.phase = Phase::Launching;
                self.health = Health::Loading;
                self.asked = false;
                vec![Effect::Launch { by_policy: true, desired: self.desired }]
            }
            Phase::Loading { .. } | Phase::Running { .. } if self.next_probe.is_some_and(|at| now >= at) => {
                self.next_probe = None;
                vec![Effect::Probe]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
