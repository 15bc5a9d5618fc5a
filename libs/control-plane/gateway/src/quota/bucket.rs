//! So much a minute: a bucket that is full at first and fills evenly. Pure: the time is told.

use std::time::Duration;

use tokio::time::Instant;

/// What a bucket holds is counted in parts of one, so that no rounding gives anything away: one is as many parts as
/// a minute has nanoseconds, and each nanosecond brings as many parts as the limit says.
const ONE: i128 = 60_000_000_000;

/// A limit a minute. A client may use all of it at once and then what flows in; what turned out to be more than
/// was expected is owed, and later ones wait for it.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u64,
    level: i128,
    filled_at: Instant,
}

impl Bucket {
    pub(super) fn full(limit: u64, now: Instant) -> Self {
        Self { limit, level: i128::from(limit) * ONE, filled_at: now }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// How long until `amount` is there; zero when it is. More than the bucket can ever hold waits for all of it.
    pub(super) fn wait_for(&mut self, amount: u64, now: Instant) -> Duration {
        self.fill(now);
        let missing = self.parts(amount) - self.level;
        self.time_for(missing)
    }

    /// How long until the bucket is full again.
    pub(super) fn full_in(&mut self, now: Instant) -> Duration {
        self.wait_for(self.limit, now)
    }

    /// Takes what has been found to be there. More than the bucket can hold empties it.
    pub(super) fn take(&mut self, amount: u64) {
        self.level -= self.parts(amount);
    }

    /// What was taken turned out to be another amount: the rest comes back, or is owed.
    pub(super) fn correct(&mut self, taken: u64, used: u64, now: Instant) {
        self.fill(now);
        let corrected = self.level + self.parts(taken) - i128::from(used) * ONE;
        self.level = corrected.min(self.capacity());
    }

    /// What could be taken now.
    pub(super) fn remaining(&mut self, now: Instant) -> u64 {
        self.fill(now);
        u64::try_from(self.level.max(0) / ONE).unwrap_or(u64::MAX)
    }

    fn capacity(&self) -> i128 {
        i128::from(self.limit) * ONE
    }

    fn parts(&self, amount: u64) -> i128 {
        i128::from(amount.min(self.limit)) * ONE
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let inflow = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX).saturating_mul(self.limit.into());
        self.level = self.level.saturating_add(inflow).min(self.capacity());
        self.filled_at = self.filled_at.max(now);
    }

    fn time_for(&self, missing: i128) -> Duration {
        if missing <= 0 {
            return Duration::ZERO;
        }
        let limit = i128::from(self.limit.max(1));
        let nanos = (missing + limit - 1) / limit;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
