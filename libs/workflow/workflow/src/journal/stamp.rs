//! Moments as journals write them: `2026-01-31T12:00:00.123456Z`.

use jiff::Timestamp;
use orch_core::UnixMicros;

/// Of every moment between the years 0 and 9999.
const LENGTH: usize = "2026-01-31T12:00:00.123456Z".len();
const FRACTION_AT: usize = "2026-01-31T12:00:00.".len();
const DIGITS: usize = 6;
const A_SECOND: i64 = 1_000_000;

/// Writes moments. The calendar is asked once a second; what lies between differs by six digits.
pub(crate) struct Stamp {
    second: i64,
    text: [u8; LENGTH],
}

impl Stamp {
    pub(crate) fn new() -> Self {
        let mut text = [0; LENGTH];
        text.copy_from_slice(b"1970-01-01T00:00:00.000000Z");
        Self { second: 0, text }
    }

    pub(crate) fn write(&mut self, moment: UnixMicros) -> &[u8] {
        let second = moment.0.div_euclid(A_SECOND);
        if second != self.second {
            self.turn_to(second);
        }
        let mut rest = moment.0.rem_euclid(A_SECOND);
        for digit in self.text[FRACTION_AT..FRACTION_AT + DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a decimal digit is small");
            rest /= 10;
        }
        &self.text
    }

    /// A clock that is millennia off shows as the epoch: the journal's order is that of its lines.
    fn turn_to(&mut self, second: i64) {
        let moment = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let text = format!("{moment:.6}");
        if text.len() == LENGTH {
            self.text.copy_from_slice(text.as_bytes());
        }
        self.second = second;
    }
}

/// A moment as text.
pub(crate) fn show(moment: UnixMicros) -> String {
    String::from_utf8_lossy(Stamp::new().write(moment)).into_owned()
}

/// The moment that a line is stamped with.
pub(crate) fn read_stamp(text: &str) -> Option<UnixMicros> {
    text.parse::<Timestamp>().ok().map(|moment| UnixMicros(moment.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_moment_has_six_digits_and_a_z() {
        let mut stamp = Stamp::new();
        assert_eq!(stamp.write(UnixMicros(1_700_000_000_000_042)), b"2023-11-14T22:13:20.000042Z");
        assert_eq!(stamp.write(UnixMicros(1_700_000_000_999_999)), b"2023-11-14T22:13:20.999999Z");
        assert_eq!(stamp.write(UnixMicros(1_700_000_001_000_000)), b"2023-11-14T22:13:21.000000Z");
    }

    proptest! {
        #[test]
        fn every_moment_of_our_time_is_read_as_it_was_written(
            moments in prop::collection::vec(-62_000_000_000_000_000i64..253_000_000_000_000_000, 1..8),
        ) {
            let mut stamp = Stamp::new();
            for moment in moments.into_iter().map(UnixMicros) {
                let text = std::str::from_utf8(stamp.write(moment)).unwrap();
                prop_assert_eq!(read_stamp(text), Some(moment));
            }
        }
    }
}
