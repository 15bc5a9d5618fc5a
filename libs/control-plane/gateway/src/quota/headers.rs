//! Limits as response headers, in the names and the form that OpenAI's libraries know.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::state::Standing;

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

pub(super) fn write(headers: &mut HeaderMap, requests: Option<Standing>, tokens: Option<Standing>) {
    for (names, standing) in [(REQUESTS, requests), (TOKENS, tokens)] {
        let Some(Standing { limit, remaining, reset }) = standing else { continue };
        let [limit_name, remaining_name, reset_name] = names;
        headers.insert(limit_name, HeaderValue::from(limit));
        headers.insert(remaining_name, HeaderValue::from(remaining));
        let reset = HeaderValue::try_from(duration(reset)).expect("digits and letters only");
        headers.insert(reset_name, reset);
    }
}

/// `6m0s`, `1.5s`, `20ms`: rounded up, so that nobody comes back too early.
fn duration(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    match (millis / 60_000, millis % 60_000) {
        (0, millis) if millis < 1000 => format!("{millis}ms"),
        (0, millis) => format!("{}s", seconds(millis)),
        (minutes, millis) => format!("{minutes}m{}s", seconds(millis)),
    }
}

fn seconds(millis: u128) -> String {
    match millis % 1000 {
        0 => format!("{}", millis / 1000),
        rest => format!("{}.{rest:03}", millis / 1000).trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let written = |millis| duration(Duration::from_millis(millis));
        assert_eq!(written(0), "0ms");
        assert_eq!(written(20), "20ms");
        assert_eq!(written(1000), "1s");
        assert_eq!(written(1500), "1.5s");
        assert_eq!(written(60_000), "1m0s");
        assert_eq!(written(360_040), "6m0.04s");
        assert_eq!(duration(Duration::from_nanos(1)), "1ms");
    }
}
