//! Leaving out a replica that fails one request after the other, and trying it again.
//!
//! A good health probe does not bring it back: an engine may say that it is well and yet answer nobody. So after a
//! pause, which grows while nothing gets better, one request is risked on it. A replica that refuses connections is
//! another matter and left out by its probes alone.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row are no accident.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What to expect of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// It failed lately, again and again.
    Resting,
    /// It did, but one request may try it again.
    Trial,
}

/// Counts the failures of one replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    pause: Duration,
    /// The end of the pause; looked at only while there are too many failures.
    rests_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        match self.rests_until {
            _ if self.failures < FAILURES => Standing::Good,
            Some(end) if now < end => Standing::Resting,
            _ => Standing::Trial,
        }
    }

    /// A request goes there. If it is the trial, the next one has to wait until this one had its time.
    pub(crate) fn chosen(&mut self, now: Instant) {
        if self.standing(now) == Standing::Trial {
            self.rests_until = Some(now + self.pause);
        }
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.rests_until = Some(now + self.pause);
        }
    }

    /// A whole good answer came.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(times: u32, now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..times).for_each(|_| breaker.failed(now));
        breaker
    }

    #[test]
    fn failures_in_a_row_lead_to_a_pause_and_then_to_one_trial() {
        let now = Instant::now();
        assert_eq!(failed(FAILURES - 1, now).standing(now), Standing::Good);
        let mut breaker = failed(FAILURES, now);
        assert_eq!(breaker.standing(now), Standing::Resting);
        let later = now + FIRST_PAUSE;
        assert_eq!(breaker.standing(later), Standing::Trial);
        breaker.chosen(later);
        assert_eq!(breaker.standing(later), Standing::Resting, "one at a time");
        assert_eq!(breaker.standing(later + FIRST_PAUSE), Standing::Trial, "the first one may never end");
        breaker.succeeded();
        assert_eq!(breaker.standing(later), Standing::Good);
    }

    #[test]
    fn the_pause_grows_to_its_limit_and_begins_anew_after_a_success() {
        let now = Instant::now();
        let mut breaker = failed(FAILURES + 1, now);
        assert_eq!(breaker.pause, FIRST_PAUSE * 2);
        (0..100).for_each(|_| breaker.failed(now));
        assert_eq!(breaker.standing(now + LONGEST_PAUSE), Standing::Trial);
        breaker.succeeded();
        (0..FAILURES).for_each(|_| breaker.failed(now));
        assert_eq!(breaker.pause, FIRST_PAUSE);
    }

    proptest! {
        #[test]
        fn it_never_rests_longer_than_the_longest_pause(steps in prop::collection::vec((0_u8..3, 0_u64..90), 0..60)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 => breaker.chosen(now),
                    1 => breaker.failed(now),
                    _ => breaker.succeeded(),
                }
                prop_assert_ne!(breaker.standing(now + LONGEST_PAUSE), Standing::Resting);
            }
        }
    }
}
