//! Which headers cross the gateway, and which stay on their side.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RETRY_AFTER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use orch_runtime::RequestId;

use crate::table::{Replica, RoutedInstance};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("x-llama-orch-instance");
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-llama-orch-node");
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("x-llama-orch-attempt");
pub(crate) const QUEUE_MS: HeaderName = HeaderName::from_static("x-llama-orch-queue-ms");
pub(crate) const CONTEXT: HeaderName = HeaderName::from_static("x-llama-orch-context");

/// Headers that belong to one connection and not to the message (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers of a client that an engine never sees: its credentials are for us, the body's length is ours to
/// tell, `Expect` is answered by our own listener, and the request's id is written anew.
const OURS: [HeaderName; 6] = [AUTHORIZATION, API_KEY, HOST, CONTENT_LENGTH, EXPECT, RequestId::HEADER];

/// Headers of a provider's answer that are about the answer.
const FROM_PROVIDERS: [HeaderName; 8] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
];

/// Header values of one replica, made once for each table.
pub(crate) struct TargetHeaders {
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    instance: HeaderValue,
    node: Option<HeaderValue>,
    context: Option<HeaderValue>,
}

impl TargetHeaders {
    pub(crate) fn new(instance: &RoutedInstance, replica: &Replica) -> Self {
        Self {
            host: value(&replica.address.to_string()).expect("a socket address is visible ASCII"),
            authorization: replica.api_key.as_deref().and_then(bearer),
            instance: value(instance.name.as_str()).expect("an instance name is visible ASCII"),
            node: value(&replica.key.node_id),
            context: replica.slot_context.map(HeaderValue::from),
        }
    }

    /// Headers that this replica gets in front of those of the client.
    pub(crate) fn own<'h>(&'h self, request_id: &'h HeaderValue) -> Vec<(HeaderName, &'h HeaderValue)> {
        let mut own = vec![(HOST, &self.host), (RequestId::HEADER, request_id)];
        own.extend(self.authorization.as_ref().map(|authorization| (AUTHORIZATION, authorization)));
        own
    }

    /// Tells the client who answered, and how long the request waited for a place.
    pub(crate) fn name_in(&self, headers: &mut HeaderMap, attempt: u32, waited: Duration) {
        headers.insert(INSTANCE, self.instance.clone());
        headers.insert(ATTEMPT, HeaderValue::from(attempt));
        headers.insert(QUEUE_MS, HeaderValue::from(waited.as_millis() as u64));
        if let Some(node) = &self.node {
            headers.insert(NODE, node.clone());
        }
        if let Some(context) = &self.context {
            headers.insert(CONTEXT, context.clone());
        }
    }
}

/// Takes out of a client's headers what must not reach an engine.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in &OURS {
        headers.remove(name);
    }
}

/// Takes out of an engine's headers what was meant for its own connection.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// Takes out of a provider's headers what is about the account of the key's owner: names, limits, cookies.
pub(crate) fn clean_remote_response(headers: &mut HeaderMap) {
    let told = |name: &HeaderName| FROM_PROVIDERS.contains(name);
    let kept = headers.iter().filter(|(name, _)| told(name));
    *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in named_in_connection(headers) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Headers that the sender declared to belong to the connection. `close` and `keep-alive` are among them, but
/// are no headers worth keeping either.
fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn bearer(key: &str) -> Option<HeaderValue> {
    let mut authorization = value(&format!("Bearer {key}"))?;
    authorization.set_sensitive(true);
    Some(authorization)
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, text)| (name.parse::<HeaderName>().unwrap(), value(text).unwrap())).collect()
    }

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let mut sent = headers(&[
            ("authorization", "Bearer ours"),
            ("x-api-key", "ours"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("host", "localhost"),
            ("content-length", "3"),
            ("content-type", "application/json"),
            ("x-custom", "kept"),
        ]);
        clean_request(&mut sent);
        assert_eq!(sent, headers(&[("content-type", "application/json"), ("x-custom", "kept")]));
    }

    #[test]
    fn a_response_keeps_its_length() {
        let mut got =
            headers(&[("content-length", "3"), ("keep-alive", "timeout=5, max=100"), ("server", "x")]);
        clean_response(&mut got);
        assert_eq!(got, headers(&[("content-length", "3"), ("server", "x")]));
    }
}
