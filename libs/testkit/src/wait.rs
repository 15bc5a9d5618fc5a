//! Waiting on a level, never on an edge, and never without a limit.

use std::time::{Duration, Instant};

/// Short enough that a test loses no time, long enough that a busy machine of two cores does other work.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics, naming `what`, when it does not within `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for_value(what, limit, || condition().then_some(()));
}

/// Waits until `look` finds something, and returns it; panics, naming `what`, when it does not within `limit`.
#[track_caller]
pub fn wait_for_value<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}

/// [`wait_for`] for tests inside a tokio runtime: other tasks go on while it waits.
///
/// The limit is measured on tokio's clock: under paused time it passes at once.
pub async fn wait_for_async<F>(what: &str, limit: Duration, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let begin = tokio::time::Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain for rain")]
    fn the_panic_names_what_was_waited_for() {
        wait_for("rain", Duration::from_millis(20), || false);
    }
}
