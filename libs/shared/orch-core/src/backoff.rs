//! Restart delays.

use std::time::Duration;

/// Exponential back-off with jitter: `delay(n) = min(initial · multiplierⁿ, max) · (1 ± jitter)`, never above
/// `max`. The caller brings the randomness, so the same seed gives the same delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestartBackoff {
    /// Delay before the first restart (n = 0).
    pub initial: Duration,
    /// Upper bound of every delay, jitter included.
    pub max: Duration,
    /// Growth from one attempt to the next, 1 or more.
    pub multiplier: f64,
    /// Share of the delay that randomness may add or take, 0 to 1.
    pub jitter: f64,
}

impl RestartBackoff {
    /// The delay before restart number `attempt` (from 0). `random` lies in `0.0..=1.0`; 0.5 means no jitter.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let max = self.max.as_secs_f64();
        // `powi` may overflow to infinity; `min` brings it back.
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        let base = if grown.is_nan() { max } else { grown.min(max) };
        let factor = 1.0 + self.jitter * (random.clamp(0.0, 1.0) * 2.0 - 1.0);
        Duration::from_secs_f64((base * factor).clamp(0.0, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: RestartBackoff = RestartBackoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(300),
        multiplier: 2.0,
        jitter: 0.1,
    };

    #[test]
    fn delays_double_up_to_the_maximum() {
        let delays: Vec<u64> = (0..10).map(|n| DEFAULT.delay(n, 0.5).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn a_zero_initial_delay_stays_zero() {
        let backoff = RestartBackoff { initial: Duration::ZERO, ..DEFAULT };
        assert_eq!(backoff.delay(40, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_thousand_delays_lie_in_the_band_and_are_not_all_equal() {
        // A sequence that is spread evenly over 0…1, so that nothing depends on luck.
        let randoms = (0..1000).map(|n: u32| f64::from(n) * 0.618_034 % 1.0);
        let delays: Vec<Duration> = randoms.map(|random| DEFAULT.delay(3, random)).collect();
        let band = Duration::from_millis(7200)..=Duration::from_millis(8800);
        assert!(delays.iter().all(|delay| band.contains(delay)), "{delays:?}");
        let different: std::collections::BTreeSet<_> = delays.iter().collect();
        assert!(different.len() > 900, "only {} different delays", different.len());
        let (low, high) = (different.first().unwrap(), different.last().unwrap());
        assert!(high.as_millis() - low.as_millis() > 1500, "the band is used: {low:?}..{high:?}");
    }

    proptest! {
        #[test]
        fn a_delay_stays_in_its_band_and_never_exceeds_the_maximum(
            attempt in 0u32..5000,
            random in 0.0f64..=1.0,
            initial in 0.0f64..3600.0,
            max in 0.0f64..86_400.0,
            multiplier in 1.0f64..10.0,
            jitter in 0.0f64..=1.0,
        ) {
            let backoff = RestartBackoff {
                initial: Duration::from_secs_f64(initial),
                max: Duration::from_secs_f64(max),
                multiplier,
                jitter,
            };
            let delay = backoff.delay(attempt, random).as_secs_f64();
            let centre = (initial * multiplier.powf(f64::from(attempt))).min(max);
            prop_assert!(delay <= max + 1e-6);
            prop_assert!(delay >= centre * (1.0 - jitter) - 1e-6);
            prop_assert!(delay <= centre * (1.0 + jitter) + 1e-6);
        }
    }
}
