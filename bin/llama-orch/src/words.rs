//! Moments, durations and command lines, as people write and read them.

use std::time::Duration;

use orch_core::UnixMillis;
use pool_manager::view::Slots;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `90s`, `10m`, `2h`, `7d`; a bare number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err("write it as 90s, 10m, 2h or 7d".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "write it as 90s, 10m, 2h or 7d".to_owned())?;
    Duration::try_from_secs_f64(number * unit as f64).map_err(|_| "is out of range".to_owned())
}

/// A moment: RFC 3339, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Moment(UnixMillis),
    Ago(Duration),
}

impl Since {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(moment) = UnixMillis::from_rfc3339(text.trim()) {
            return Ok(Since::Moment(moment));
        }
        parse_duration(text)
            .map(Since::Ago)
            .map_err(|_| "write it as 10m, 2h, 7d or 2026-01-31T12:00:00Z".to_owned())
    }

    pub(crate) fn before(self, now: UnixMillis) -> UnixMillis {
        match self {
            Since::Moment(moment) => moment,
            Since::Ago(ago) => {
                UnixMillis(now.0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// The two largest units: `3s`, `4m05s`, `2h10m`, `3d4h`.
pub(crate) fn show_duration(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m{:02}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h{:02}m", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{}d{}h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// `0.35s`, `4.2s`, `2m05s`.
pub(crate) fn show_seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{seconds:.2}s"),
        seconds if seconds < 60.0 => format!("{seconds:.1}s"),
        seconds => show_duration(Duration::from_secs_f64(seconds.min(1e15)).as_secs()),
    }
}

/// Busy slots of all.
pub(crate) fn show_slots(slots: Slots) -> String {
    format!("{}/{}", slots.busy, slots.idle + slots.busy)
}

/// Of one core.
pub(crate) fn show_percent(percent: f64) -> String {
    format!("{percent:.0}%")
}

/// Of something a second; small ones with a decimal.
pub(crate) fn show_rate(rate: f64) -> String {
    if rate > 0.0 && rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// `-` for nothing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `1 step`, `1,200 steps`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{} {what}s", with_commas(count as u64)) }
}

/// `12,345`
pub(crate) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Words as a shell would take them.
pub(crate) fn command_line(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell of this system would take it.
pub(crate) fn quoted(word: &str) -> String {
    if cfg!(windows) {
        return windows_quoted(word);
    }
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// One argument as a program's own start-up code takes a Windows command line apart.
pub(crate) fn windows_quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '\n', '"']) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    let mut backslashes = 0;
    for character in word.chars() {
        match character {
            '\\' => backslashes += 1,
            // Backslashes count only before a quote, and are doubled there.
            '"' => {
                quoted.push_str(&"\\".repeat(backslashes * 2 + 1));
                backslashes = 0;
                quoted.push('"');
            }
            other => {
                quoted.push_str(&"\\".repeat(backslashes));
                backslashes = 0;
                quoted.push(other);
            }
        }
    }
    quoted.push_str(&"\\".repeat(backslashes * 2));
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        for (text, seconds) in
            [("90", 90.0), ("1.5s", 1.5), ("10m", 600.0), ("2h", 7200.0), ("7d", 604_800.0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "m", "-1s", "5 weeks", "1e99d", "ümlaut"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_a_date_or_so_long_ago() {
        let now = UnixMillis(1_000_000);
        assert_eq!(Since::parse("10s").unwrap().before(now), UnixMillis(990_000));
        assert_eq!(Since::parse("1970-01-01T00:00:01Z").unwrap().before(now), UnixMillis(1000));
        assert!(Since::parse("yesterday").is_err());
    }

    #[test]
    fn rates_have_a_decimal_where_it_tells_something() {
        for (rate, text) in [(0.0, "0"), (0.4, "0.4"), (41.26, "41.3"), (100.0, "100"), (12_345.6, "12346")] {
            assert_eq!(show_rate(rate), text);
        }
    }

    #[test]
    fn durations_are_shown_by_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (65, "1m05s"), (7800, "2h10m"), (273_600, "3d4h")] {
            assert_eq!(show_duration(seconds), text);
        }
    }

    #[test]
    fn durations_are_shown_as_exactly_as_they_are_worth() {
        assert_eq!([0.0, 0.351, 4.25, 125.0].map(show_seconds), ["0.00s", "0.35s", "4.2s", "2m05s"]);
    }

    #[test]
    fn words_that_a_shell_would_take_apart_are_quoted() {
        assert_eq!(
            command_line(&["/x/llama-server", "--alias", "a b", "", "it's"]),
            r"/x/llama-server --alias 'a b' '' 'it'\''s'"
        );
    }

    #[test]
    fn an_argument_for_windows_arrives_as_it_was() {
        for (word, quoted) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            (r"C:\a b\", r#""C:\a b\\""#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            (r#"a\" b"#, r#""a\\\" b""#),
            (r"a\\b", r"a\\b"),
        ] {
            assert_eq!(windows_quoted(word), quoted);
        }
    }
}
