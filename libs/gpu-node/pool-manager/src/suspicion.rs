//! Is an engine wedged: well by its health checks, but of no use to its users? A pure judge over what requests and
//! the process show.
//!
//! A false alarm ends a model that works, so the judge needs two witnesses. The first is traffic: failures in a row,
//! or requests in flight that nothing comes of while the process does not work either. The second is a request of our
//! own, the canary, sent only then; an engine that is idle or sleeps is never asked.

use std::time::{Duration, Instant};

use crate::completion::Completion;
use crate::traffic::RequestSigns;

/// So many generations in a row that the engine failed are suspicious.
const FAILURES: u32 = 3;
/// Share of one core from which on a process counts as working: answering probes costs far less.
const WORKING_SHARE: f64 = 0.02;
/// The kernel counts in hundredths of a second: over less than this a share of them says nothing.
const SHORTEST_STEP: Duration = Duration::from_millis(500);
/// Time that passes between two looks beyond this was not watched: the machine slept, or this process did not run.
const LONGEST_STEP: Duration = Duration::from_secs(3);

/// How patient the judge is. All in health-check timeouts, so that who raises that one for a slow machine raises all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Requests in flight without any progress for so long are suspicious.
    pub silence: Duration,
    /// The canary's time to be answered.
    pub canary: Duration,
    /// After a canary that was answered none is sent for so long.
    pub calm: Duration,
}

impl Patience {
    pub(crate) fn of(probe_timeout: Duration) -> Self {
        Self { silence: probe_timeout * 12, canary: probe_timeout * 6, calm: probe_timeout * 12 }
    }
}

/// What one look at an engine showed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    pub signs: RequestSigns,
    pub slots_total: u32,
    /// Of the engine's process so far; `None` where the system does not tell.
    pub processor_time: Option<Duration>,
}

/// Why an engine is suspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Failures { count: u32, last_status: u16 },
    Silence { so_long: Duration },
}

/// What the canary brought, and what happened meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inquiry {
    pub ground: Ground,
    pub completion: Completion,
    pub before: Look,
    pub after: Look,
    pub took: Duration,
    /// Whether the engine's own account of its slots changed.
    pub slots_moved: bool,
}

/// The judge's memory of one engine process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspicion {
    last: Option<(Instant, Look)>,
    /// For so long requests were in flight and nothing came of any.
    silent: Duration,
    /// So many of the failures were looked into already.
    forgiven: u32,
    calm_until: Option<Instant>,
}

impl Suspicion {
    /// Takes a look into account; a ground to send a canary, if there is one.
    pub(crate) fn look(&mut self, look: Look, patience: &Patience, now: Instant) -> Option<Ground> {
        let progressed = self.note(look, now);
        self.forgiven = self.forgiven.min(look.signs.failures);
        if self.calm_until.is_some_and(|until| now < until) {
            return None;
        }
        let count = look.signs.failures - self.forgiven;
        let all_busy = look.signs.in_flight >= look.slots_total.max(1);
        if count >= FAILURES && !(progressed && all_busy) {
            return Some(Ground::Failures { count, last_status: look.signs.last_status });
        }
        (self.silent >= patience.silence && look.signs.in_flight > 0)
            .then_some(Ground::Silence { so_long: self.silent })
    }

    /// Whether anything was done since the last look.
    fn note(&mut self, look: Look, now: Instant) -> bool {
        let Some((at, last)) = self.last.replace((now, look)) else { return false };
        let passed = now.duration_since(at);
        // Who gave up waiting left nothing in flight: that is no progress, and no time that anybody waited either.
        let waiting = last.signs.in_flight > 0 && look.signs.in_flight > 0;
        let progressed = if waiting { worked(&last, &look, passed) } else { answered(&last, &look) };
        if progressed {
            self.silent = Duration::ZERO;
        } else if waiting {
            self.silent += passed.min(LONGEST_STEP);
        }
        progressed
    }

    /// Judges what the canary brought: the reason to end the engine, if there is one.
    pub(crate) fn judge(&mut self, inquiry: &Inquiry, patience: &Patience, now: Instant) -> Option<String> {
        let limit = patience.canary;
        let failed = match &inquiry.completion {
            Completion::Failed(why) => format!("so did a request of our own: {why}"),
            Completion::Silent if !inquiry.slots_moved && !inquiry.worked() => {
                format!("a request of our own got no answer within {} s", limit.as_secs_f64())
            }
            // It works, it is busy with somebody else, or what it says is for the probes to judge.
            Completion::Silent | Completion::Done | Completion::Declined(_) | Completion::Refused => {
                self.silent = Duration::ZERO;
                self.forgiven = inquiry.after.signs.failures;
                self.calm_until = Some(now + patience.calm);
                return None;
            }
        };
        Some(format!("it answers its health checks, but {}, and {failed}", inquiry.ground.told()))
    }
}

impl Inquiry {
    fn worked(&self) -> bool {
        worked(&self.before, &self.after, self.took)
    }
}

impl Ground {
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Failures { count, last_status: 0 } => format!("{count} requests in a row broke off"),
            Self::Failures { count, last_status } => {
                format!("{count} requests in a row failed (HTTP {last_status})")
            }
            Self::Silence { so_long } => format!("no request made progress for {} s", so_long.as_secs()),
        }
    }
}

/// Pieces of an answer came.
fn answered(before: &Look, after: &Look) -> bool {
    after.signs.progress != before.signs.progress
}

/// Pieces of an answer came, or the process did more than answer probes. A system that does not tell how much a
/// process does gives no ground for suspicion.
fn worked(before: &Look, after: &Look, passed: Duration) -> bool {
    let spent = after.processor_time.zip(before.processor_time).map(|(now, then)| now.saturating_sub(then));
    let enough = passed.max(SHORTEST_STEP).mul_f64(WORKING_SHARE);
    answered(before, after) || spent.is_none_or(|spent| spent >= enough)
}

#[cfg(test)]
#[path = "suspicion_tests.rs"]
mod tests;
