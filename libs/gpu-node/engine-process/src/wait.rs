//! Bounded waiting on a level.

use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(50);

/// Looks again and again, ever less often, until the condition holds or the limit has passed. The last look is
/// always after the limit, so a slow machine cannot turn a yes into a no.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut step = SHORTEST;
    loop {
        if condition() {
            return true;
        }
        let now = Instant::now();
        if now >= end {
            return false;
        }
        pause(step.min(end - now));
        step = (step * 2).min(LONGEST);
    }
}

/// The pause between two looks. Everything that can be waited for by handle is waited for by handle instead.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_at_the_second_look_ends_the_wait() {
        let mut looks = 0;
        let held = wait_until(Duration::from_secs(5), || {
            looks += 1;
            looks == 2
        });
        assert!(held);
        assert_eq!(looks, 2);
    }

    #[test]
    fn a_wait_without_time_still_looks_once() {
        assert!(wait_until(Duration::ZERO, || true));
        assert!(!wait_until(Duration::ZERO, || false));
    }
}
