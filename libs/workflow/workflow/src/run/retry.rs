//! What comes after a failed attempt. Pure.

use std::time::Duration;

use workflow_spec::{Candidate, FailureKind, RetryPolicy};

use crate::CallFailure;

/// Failures that lead to the next candidate where it does not list its own.
const FALLBACK_ON: [FailureKind; 4] =
    [FailureKind::Timeout, FailureKind::Connect, FailureKind::Overloaded, FailureKind::CircuitOpen];

/// What opens a provider's circuit: a step that puts up with one of these puts up with an open circuit.
const OPENS_CIRCUITS: [FailureKind; 3] =
    [FailureKind::Timeout, FailureKind::Connect, FailureKind::Overloaded];

/// A step waits no longer than this at open circuits, all its waits together: by then a provider has been tried
/// several times.
const LONGEST_AT_CIRCUITS: Duration = Duration::from_mins(2);

/// Whoever asks to be left alone for longer is asked again by then: no answer stops a job for days.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same again after this long.
    Again {
        delay: Duration,
    },
    /// The same again after this long, and this one was no try: nobody was asked.
    WhenCircuitCloses {
        delay: Duration,
    },
    /// The next candidate, at once.
    Fallback,
    Fail,
}

/// Where a step stands after a failed attempt.
pub(crate) struct Standing<'a> {
    pub(crate) policy: &'a RetryPolicy,
    /// Attempts made at the present candidate, from 1.
    pub(crate) tries: u32,
    /// How long it has waited at open circuits.
    pub(crate) at_circuits: Duration,
    pub(crate) next_candidate: Option<&'a Candidate>,
    /// Until the step's deadline.
    pub(crate) time_left: Option<Duration>,
    /// From 0 to 1, the same for the same step and attempt of a job.
    pub(crate) jitter: f64,
}

/// Again by the step's policy, then the next candidate, then the end. A wait that would outlast the deadline is
/// not begun.
pub(crate) fn after_failure(failure: &CallFailure, standing: &Standing<'_>) -> Next {
    if standing.time_left == Some(Duration::ZERO) {
        return Next::Fail;
    }
    if failure.kind == FailureKind::CircuitOpen && !standing.policy.on.contains(&failure.kind) {
        return at_open_circuit(failure, standing);
    }
    if standing.tries <= standing.policy.max && standing.policy.on.contains(&failure.kind) {
        let delay = delay(standing.policy, standing.tries, standing.jitter);
        let delay = delay.max(failure.retry_after.unwrap_or_default().min(LONGEST_WAIT));
        if standing.time_left.is_none_or(|left| delay < left) {
            return Next::Again { delay };
        }
    }
    fallback_or_fail(failure, standing)
}

/// The next candidate at once; else it is waited for the circuit to close, where the step would try again after
/// what has opened it.
fn at_open_circuit(failure: &CallFailure, standing: &Standing<'_>) -> Next {
    let elsewhere = fallback_or_fail(failure, standing);
    let delay = failure.retry_after.unwrap_or(standing.policy.base);
    let tries_again = standing.policy.max > 0 && puts_up_with_open_circuits(&standing.policy.on);
    let has_time = standing.at_circuits + delay <= LONGEST_AT_CIRCUITS
        && standing.time_left.is_none_or(|left| delay < left);
    if elsewhere == Next::Fail && tries_again && has_time {
        return Next::WhenCircuitCloses { delay };
    }
    elsewhere
}

fn fallback_or_fail(failure: &CallFailure, standing: &Standing<'_>) -> Next {
    match standing.next_candidate {
        Some(candidate) if leads_to(candidate, failure.kind) => Next::Fallback,
        _ => Next::Fail,
    }
}

fn leads_to(candidate: &Candidate, kind: FailureKind) -> bool {
    if candidate.on.is_empty() {
        return FALLBACK_ON.contains(&kind);
    }
    candidate.on.contains(&kind)
        || (kind == FailureKind::CircuitOpen && puts_up_with_open_circuits(&candidate.on))
}

fn puts_up_with_open_circuits(on: &[FailureKind]) -> bool {
    OPENS_CIRCUITS.iter().any(|kind| on.contains(kind))
}

/// Doubles from try to try up to the cap; between a half and the whole of it, so that steps which failed together
/// do not come back together.
fn delay(policy: &RetryPolicy, tries: u32, jitter: f64) -> Duration {
    let doubled = policy.base.saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(policy.cap).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A number from 0 to 1 that the words decide.
pub(crate) fn jitter(job: &str, step: &str, attempt: u32) -> f64 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [job.as_bytes(), b"\0", step.as_bytes(), &attempt.to_le_bytes()] {
        hasher.update(part);
    }
    f64::from(hasher.finalize()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> RetryPolicy {
        let on = vec![FailureKind::Connect, FailureKind::RateLimit];
        RetryPolicy { max: 2, base: Duration::from_secs(1), cap: Duration::from_secs(30), on }
    }

    fn standing(policy: &RetryPolicy, tries: u32) -> Standing<'_> {
        let at_circuits = Duration::ZERO;
        Standing { policy, tries, at_circuits, next_candidate: None, time_left: None, jitter: 1.0 }
    }

    fn candidate(on: &[FailureKind]) -> Candidate {
        Candidate { provider: None, model: None, options: serde_json::Map::new(), on: on.to_vec() }
    }

    #[test]
    fn max_counts_the_tries_after_the_first() {
        let (policy, failure) = (policy(), CallFailure::new(FailureKind::Connect, "refused"));
        let second = Duration::from_secs(1);
        assert_eq!(after_failure(&failure, &standing(&policy, 1)), Next::Again { delay: second });
        assert_eq!(after_failure(&failure, &standing(&policy, 2)), Next::Again { delay: 2 * second });
        assert_eq!(after_failure(&failure, &standing(&policy, 3)), Next::Fail);
    }

    #[test]
    fn kinds_that_are_not_listed_fail_at_once() {
        let policy = policy();
        let failure = CallFailure::new(FailureKind::Auth, "no key");
        assert_eq!(after_failure(&failure, &standing(&policy, 1)), Next::Fail);
    }

    #[test]
    fn a_provider_waits_as_long_as_it_asks_unless_the_deadline_comes_first() {
        let policy = policy();
        let mut failure = CallFailure::new(FailureKind::RateLimit, "slow down");
        failure.retry_after = Some(Duration::from_secs(90));
        let mut now = standing(&policy, 1);
        assert_eq!(after_failure(&failure, &now), Next::Again { delay: Duration::from_secs(90) });
        now.time_left = Some(Duration::from_secs(60));
        assert_eq!(after_failure(&failure, &now), Next::Fail);
        (now.time_left, failure.retry_after) = (None, Some(Duration::MAX));
        assert_eq!(
            after_failure(&failure, &now),
            Next::Again { delay: LONGEST_WAIT },
            "nobody waits forever"
        );
    }

    #[test]
    fn the_next_candidate_comes_after_the_tries_and_only_on_its_failures() {
        let policy = policy();
        let mut now = standing(&policy, 3);
        let (default, picky) = (candidate(&[]), candidate(&[FailureKind::RateLimit]));
        let failure = CallFailure::new(FailureKind::Connect, "refused");
        now.next_candidate = Some(&default);
        assert_eq!(after_failure(&failure, &now), Next::Fallback);
        now.next_candidate = Some(&picky);
        assert_eq!(after_failure(&failure, &now), Next::Fail);
        now.tries = 1;
        assert!(matches!(after_failure(&failure, &now), Next::Again { .. }));
    }

    #[test]
    fn an_open_circuit_leads_to_the_next_candidate_or_is_waited_for_within_bounds() {
        let policy = policy();
        let mut failure = CallFailure::new(FailureKind::CircuitOpen, "rests");
        failure.retry_after = Some(Duration::from_secs(10));
        let wait = Next::WhenCircuitCloses { delay: Duration::from_secs(10) };
        // The tries are not used up by it.
        let mut now = standing(&policy, 9);
        assert_eq!(after_failure(&failure, &now), wait);
        now.at_circuits = Duration::from_secs(111);
        assert_eq!(after_failure(&failure, &now), Next::Fail, "not for ever");
        (now.at_circuits, now.time_left) = (Duration::ZERO, Some(Duration::from_secs(5)));
        assert_eq!(after_failure(&failure, &now), Next::Fail, "not beyond the deadline");
        let (knows_why, picky) = (candidate(&[FailureKind::Overloaded]), candidate(&[FailureKind::Auth]));
        (now.time_left, now.next_candidate) = (None, Some(&knows_why));
        assert_eq!(after_failure(&failure, &now), Next::Fallback, "what opened it leads there too");
        now.next_candidate = Some(&picky);
        assert_eq!(after_failure(&failure, &now), wait);
        for policy in [
            RetryPolicy { max: 0, ..policy.clone() },
            RetryPolicy { on: vec![FailureKind::RateLimit], ..policy.clone() },
        ] {
            assert_eq!(after_failure(&failure, &standing(&policy, 1)), Next::Fail);
        }
    }

    proptest! {
        #[test]
        fn delays_stay_between_half_the_step_and_the_cap(tries in 1u32..200, jitter in 0.0f64..=1.0) {
            let policy = RetryPolicy { max: u32::MAX, ..policy() };
            let failure = CallFailure::new(FailureKind::Connect, "refused");
            let now = Standing { jitter, ..standing(&policy, tries) };
            let Next::Again { delay } = after_failure(&failure, &now) else { panic!("a try is left") };
            prop_assert!(delay >= policy.base / 2 && delay <= policy.cap);
        }

        #[test]
        fn jitter_is_the_same_for_the_same_attempt(step in ".{0,20}", attempt in 0u32..100) {
            let once = jitter("job", &step, attempt);
            prop_assert!((0.0..=1.0).contains(&once));
            prop_assert_eq!(once.to_bits(), jitter("job", &step, attempt).to_bits());
        }
    }
}
