//! Where a reader of log files stands, as a short text that it can come back with.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::Stream;
use super::follow::Stamp;

/// No position is longer.
const LONGEST: usize = 256;

/// A place in the logs of one engine; survives rotations, and the daemon that gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition(pub(super) Vec<Place>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: Stream,
    pub(super) offset: u64,
    /// The youngest rotated file at that time.
    pub(super) youngest: Option<Stamp>,
}

/// A text is no position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a position in a log")]
pub struct NoPosition;

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, place) in self.0.iter().enumerate() {
            let letter = match place.stream {
                Stream::Stdout => 'o',
                Stream::Stderr => 'e',
            };
            let separator = if number == 0 { "" } else { "-" };
            write!(f, "{separator}{letter}{}", place.offset)?;
            if let Some(stamp) = place.youngest {
                let since = stamp.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                write!(f, ".{}.{}.{}", since.as_secs(), since.subsec_nanos(), stamp.size)?;
            }
        }
        Ok(())
    }
}

impl FromStr for LogPosition {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        if text.len() > LONGEST {
            return Err(NoPosition);
        }
        text.split('-').map(place).collect::<Option<Vec<_>>>().map(Self).ok_or(NoPosition)
    }
}

fn place(text: &str) -> Option<Place> {
    let stream = match text.chars().next()? {
        'o' => Stream::Stdout,
        'e' => Stream::Stderr,
        _ => return None,
    };
    let numbers: Vec<u64> = text[1..].split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (offset, youngest) = match numbers[..] {
        [offset] => (offset, None),
        [offset, seconds, nanos, size] => {
            let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
            let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))?;
            (offset, Some(Stamp { modified, size }))
        }
        _ => return None,
    };
    Some(Place { stream, offset, youngest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_position_is_refused() {
        let long = format!("o{}", "1".repeat(300));
        for bad in ["", "-", "o", "x1", "o1.2", "o1.2.3.4.5", "o1.1.1000000000.1", "o-1", "\u{fc}1", &long] {
            assert_eq!(bad.parse::<LogPosition>(), Err(NoPosition), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_survives_its_text(
            offset in any::<u64>(), seconds in 0_u64..10_000_000_000, nanos in 0_u32..1_000_000_000,
            size in any::<u64>(), rotated in any::<bool>(), both in any::<bool>(),
        ) {
            let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
            let youngest = rotated.then_some(Stamp { modified, size });
            let mut places = vec![Place { stream: Stream::Stderr, offset, youngest }];
            if both {
                places.push(Place { stream: Stream::Stdout, offset: size, youngest: None });
            }
            let position = LogPosition(places);
            prop_assert_eq!(position.to_string().parse::<LogPosition>(), Ok(position));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,300}") {
            let _ = text.parse::<LogPosition>();
        }
    }
}
