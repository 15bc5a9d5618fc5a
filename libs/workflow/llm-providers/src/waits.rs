//! How long a provider asks to wait: after a refusal, and before it would have to refuse.

use std::time::Duration;

use orch_core::UnixMillis;
use reqwest::header::HeaderMap;

/// A request is not held back longer than this; then the provider may say for itself that it has no room.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// Numbers above this are seconds since 1970, not seconds from now.
const EPOCH_SECONDS: f64 = 1e9;
const EPOCH_MILLISECONDS: f64 = 1e12;

/// What is left of an allowance, and when it is filled up again.
const ALLOWANCES: [(&str, &str); 8] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// How long a refusal asks to wait.
pub(crate) fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    if let Some(wait) = text(headers, "retry-after-ms").and_then(|text| positive(text.parse().ok()?, 1e-3)) {
        return Some(wait);
    }
    text(headers, "retry-after").and_then(|text| moment(text, now)).or_else(|| used_up(headers, now))
}

/// How long to wait before the next request, because an answer said that nothing is left. At most [`LONGEST_HOLD`].
pub(crate) fn hold(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    used_up(headers, now).map(|wait| wait.min(LONGEST_HOLD)).filter(|wait| !wait.is_zero())
}

/// When all allowances that are used up will be there again.
fn used_up(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let waits = ALLOWANCES.iter().filter_map(|(remaining, reset)| {
        let left: f64 = text(headers, remaining)?.parse().ok()?;
        (left <= 0.0).then(|| moment(text(headers, reset)?, now)).flatten()
    });
    waits.max()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A time from now: seconds, a span such as `6m0s`, a date of HTTP or of RFC 3339, or seconds since 1970. What has
/// passed is no wait.
fn moment(text: &str, now: UnixMillis) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        if !number.is_finite() {
            return None;
        }
        let since_epoch = match number {
            _ if number >= EPOCH_MILLISECONDS => Some(number),
            _ if number >= EPOCH_SECONDS => Some(number * 1e3),
            _ => None,
        };
        return match since_epoch {
            Some(millis) => Some(UnixMillis(millis as i64).since(now)),
            None => positive(number, 1.0),
        };
    }
    if let Some(at) = UnixMillis::from_rfc3339(text) {
        return Some(at.since(now));
    }
    if let Ok(at) = jiff::fmt::rfc2822::parse(text) {
        return Some(UnixMillis(at.timestamp().as_millisecond()).since(now));
    }
    span(text)
}

fn positive(number: f64, unit: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number * unit).ok()
}

/// `1h2m3.5s`, `20ms`.
fn span(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_length = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_length] {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return None,
        };
        total = total.checked_add(positive(number, seconds)?)?;
        rest = &rest[unit_length..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_445_412_470_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_refusal_says_when_to_come_back_in_many_ways() {
        for (name, value, milliseconds) in [
            ("retry-after", "2", 2_000),
            ("retry-after", "0.5", 500),
            ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", 10_000),
            ("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT", 0),
            ("retry-after-ms", "250", 250),
        ] {
            let wait = retry_after(&headers(&[(name, value)]), NOW);
            assert_eq!(wait, Some(Duration::from_millis(milliseconds)), "{name}: {value}");
        }
        for nonsense in ["soon", "-1", "NaN", "", "1x", "1e400"] {
            assert_eq!(retry_after(&headers(&[("retry-after", nonsense)]), NOW), None, "{nonsense}");
        }
    }

    #[test]
    fn an_allowance_that_is_used_up_holds_the_next_request_back() {
        for (remaining, reset, value, milliseconds) in [
            ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "1m0s", 60_000),
            ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "20ms", 20),
            ("x-ratelimit-remaining", "x-ratelimit-reset", "1445412475", 5_000),
            ("x-ratelimit-remaining", "x-ratelimit-reset", "1445412475000", 5_000),
            (
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
                "2015-10-21T07:27:53Z",
                3_000,
            ),
        ] {
            let told = headers(&[(remaining, "0"), (reset, value)]);
            assert_eq!(hold(&told, NOW), Some(Duration::from_millis(milliseconds)), "{reset}: {value}");
            let told = headers(&[(remaining, "1"), (reset, value)]);
            assert_eq!(hold(&told, NOW), None, "one is left");
        }
        let long = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1h30m")]);
        assert_eq!(hold(&long, NOW), Some(LONGEST_HOLD));
        assert_eq!(retry_after(&long, NOW), Some(Duration::from_secs(5_400)), "a refusal is told as it is");
    }

    proptest! {
        #[test]
        fn no_header_of_a_stranger_is_a_fault(value in "[ -~]{0,30}") {
            let told = headers(&[("retry-after", &value), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &value)]);
            let _ = retry_after(&told, NOW);
            prop_assert!(hold(&told, NOW).is_none_or(|wait| wait <= LONGEST_HOLD));
        }
    }
}
