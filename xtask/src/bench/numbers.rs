//! Medians, percentiles and how they are written down.

use std::time::Duration;

/// What several rows of one measurement say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Panics without a value: every measurement has at least one row.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = sorted.first().zip(sorted.last()).expect("a measurement has rows");
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { median, least, most }
    }

    /// `0.95 (0.93–0.97)`.
    pub(super) fn shown(self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
    }

    /// [`Spread::shown`] for differences: `+0.07 (+0.05–+0.09)`.
    pub(super) fn shown_signed(self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:+.decimals$} ({least:+.decimals$} to {most:+.decimals$})")
    }
}

/// The smallest sample that `share` of all samples do not exceed; sorts them.
///
/// Panics without a sample.
pub(super) fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let rank = (share * samples.len() as f64).ceil() as usize;
    samples[rank.clamp(1, samples.len()) - 1]
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(super) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000_000.0
}

/// KiB, as the kernel counts memory, in MB of a million bytes, as goals do.
pub(super) fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Spread { median: 3.0, least: 1.0, most: 9.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
    }

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut samples, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&mut samples, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut [Duration::from_millis(7)], 0.99), Duration::from_millis(7));
    }

    #[test]
    fn spreads_show_their_ends() {
        let spread = Spread { median: 0.07, least: -0.012, most: 0.5 };
        assert_eq!(spread.shown(2), "0.07 (-0.01–0.50)");
        assert_eq!(spread.shown_signed(2), "+0.07 (-0.01 to +0.50)");
    }
}
