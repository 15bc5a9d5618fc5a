//! The name of a request: echoed or made, and carried everywhere the request goes.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Longer ids are replaced: they would swell every log line of the request.
const MAX_LENGTH: usize = 128;

/// Identifies one request in responses, logs, nodes and engines.
///
/// Kept as a header value, so that handing it on costs no allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The header under which an id is returned and forwarded.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
    /// Also read from a request, after [`RequestId::HEADER`].
    pub const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

    /// A new id, sortable by time.
    pub fn generate() -> Self {
        let mut buffer = [0; uuid::fmt::Simple::LENGTH];
        let text = Uuid::now_v7().simple().encode_lower(&mut buffer);
        Self(HeaderValue::from_str(text).expect("hexadecimal digits are valid in a header"))
    }

    /// The caller's id if it sent a usable one, else a new one.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        [Self::HEADER, Self::CORRELATION_HEADER]
            .iter()
            .filter_map(|name| headers.get(name))
            .find(|value| is_usable(value.as_bytes()))
            .map_or_else(Self::generate, |value| Self(value.clone()))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("only visible ASCII is accepted")
    }

    /// For the response, and for the request that is passed on.
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Visible ASCII only: an id appears in log lines, where spaces and control characters could forge entries.
fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &[u8])]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap())).collect()
    }

    #[test]
    fn the_callers_id_is_kept() {
        let id = RequestId::from_headers(&headers(&[(RequestId::HEADER, b"abc-1")]));
        assert_eq!(id.as_str(), "abc-1");
    }

    #[test]
    fn a_request_id_goes_before_a_correlation_id() {
        let both = headers(&[(RequestId::CORRELATION_HEADER, b"second"), (RequestId::HEADER, b"first")]);
        assert_eq!(RequestId::from_headers(&both).as_str(), "first");
        let one = headers(&[(RequestId::CORRELATION_HEADER, b"second")]);
        assert_eq!(RequestId::from_headers(&one).as_str(), "second");
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        for bad in [&b""[..], b"two words", b"tab\there", b"caf\xc3\xa9", &[b'a'; MAX_LENGTH + 1]] {
            let made = RequestId::from_headers(&headers(&[(RequestId::HEADER, bad)]));
            assert_eq!(made.as_str().len(), 32, "{bad:?} must be replaced");
        }
    }

    #[test]
    fn made_ids_differ() {
        assert_ne!(RequestId::generate(), RequestId::generate());
    }
}
