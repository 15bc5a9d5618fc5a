//! Quantities that carry their unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of bytes. Shown in binary units, as memory is bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl ByteCount {
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {}", UNITS[unit]) }
    }
}

/// A moment: milliseconds since the Unix epoch, UTC. The form of every timestamp in the state database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The wall clock, read at the rim of the program. Logic takes the time as a parameter instead.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)))
    }

    /// RFC 3339 with milliseconds, in UTC. Moments outside the years −9999…9999 show as the epoch.
    pub fn to_rfc3339(self) -> String {
        let moment = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{moment:.3}")
    }

    /// Reads an RFC 3339 moment.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Self(moment.as_millisecond()))
    }

    /// Time passed since an earlier moment; zero when the clock stepped back.
    pub fn since(self, earlier: UnixMillis) -> std::time::Duration {
        let millis = self.0.saturating_sub(earlier.0).max(0);
        std::time::Duration::from_millis(millis.unsigned_abs())
    }
}

/// A moment in microseconds since the beginning of 1970, UTC: what journals are stamped with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// The wall clock, read at the rim of the program.
    #[expect(clippy::disallowed_methods, reason = "beside the one place that reads the wall clock")]
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time passed since an earlier moment; zero when the clock stepped back.
    pub fn since(self, earlier: UnixMicros) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_people_write_them() {
        assert_eq!(ByteCount(512).to_string(), "512 B");
        assert_eq!(ByteCount::from_mib(1536).to_string(), "1.5 GiB");
    }

    #[test]
    fn moments_survive_rfc3339() {
        let moment = UnixMillis(1_700_000_000_123);
        assert_eq!(moment.to_rfc3339(), "2023-11-14T22:13:20.123Z");
        assert_eq!(UnixMillis::from_rfc3339(&moment.to_rfc3339()), Some(moment));
    }

    #[test]
    fn a_clock_that_stepped_back_gives_no_negative_age() {
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), std::time::Duration::ZERO);
    }
}
