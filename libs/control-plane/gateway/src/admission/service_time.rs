//! How long requests keep a slot busy, and what follows from it for those who wait.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The share of the newest time in the mean: the last ten or so count.
const WEIGHT_DIVISOR: i64 = 8;

/// A moving mean of the times that requests took. Zero until there is one.
#[derive(Default)]
pub(crate) struct ServiceTime {
    micros: AtomicI64,
}

impl ServiceTime {
    /// Takes note of one more. Two at the same moment may overwrite each other, which a mean can bear.
    pub(crate) fn observe(&self, time: Duration) {
        let new = i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2).max(1);
        let mean = self.micros.load(Ordering::Relaxed);
        let next = if mean == 0 { new } else { mean + (new - mean) / WEIGHT_DIVISOR };
        self.micros.store(next.max(1), Ordering::Relaxed);
    }

    /// The mean, once there is one.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let micros = self.micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.unsigned_abs()))
    }
}

/// How long the one waits that `ahead` go before, when so many slots are busy for such times each. Nothing, if no
/// time is known.
pub(super) fn expected_wait(
    ahead: usize,
    replicas: impl Iterator<Item = (u32, Option<Duration>)>,
) -> Option<Duration> {
    let known = replicas.filter_map(|(slots, mean)| Some((slots.max(1), mean?)));
    let freed_a_second: f64 = known.map(|(slots, mean)| f64::from(slots) / mean.as_secs_f64()).sum();
    (freed_a_second > 0.0).then(|| {
        let seconds = (ahead as f64 + 1.0) / freed_a_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_times() {
        let time = ServiceTime::default();
        assert_eq!(time.mean(), None);
        time.observe(Duration::from_secs(8));
        assert_eq!(time.mean(), Some(Duration::from_secs(8)));
        time.observe(Duration::from_secs(16));
        assert_eq!(time.mean(), Some(Duration::from_secs(9)));
        for _ in 0..100 {
            time.observe(Duration::from_millis(10));
        }
        assert!(time.mean().unwrap() < Duration::from_millis(20));
    }

    #[test]
    fn who_waits_longer_is_who_stands_behind_more_and_where_fewer_slots_are() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(expected_wait(3, [(2, second)].into_iter()), Some(Duration::from_secs(2)));
        assert_eq!(expected_wait(3, [(2, second), (2, second)].into_iter()), second);
        assert_eq!(expected_wait(3, [(2, second), (2, None)].into_iter()), Some(Duration::from_secs(2)));
        assert_eq!(expected_wait(3, [(2, None)].into_iter()), None);
    }
}
