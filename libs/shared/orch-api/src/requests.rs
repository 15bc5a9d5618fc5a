//! The request log, and what was used.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One request of the data plane that is over. Times are in milliseconds; what is not known is null, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    /// Grows with every request that ends; `after` takes it.
    pub seq: i64,
    /// The request's id, as its answer's `X-Request-Id` told.
    pub id: String,
    /// When it arrived, RFC 3339.
    pub ts: String,
    /// The path that it asked for.
    pub endpoint: String,
    /// `openai`, `anthropic`, `ollama` or `llama.cpp`.
    pub dialect: String,
    /// The id of its key; `anyone` and `local` stand for requests without one and for this home's own.
    pub key: String,
    /// What the key's owner called it.
    pub key_name: Option<String>,
    /// The name that it asked for.
    pub model: Option<String>,
    /// The instance that had it last; null when none ever did.
    pub instance: Option<String>,
    /// The node of that instance.
    pub node_id: Option<String>,
    /// The replica of that instance.
    pub replica_id: Option<String>,
    /// How many replicas had it.
    pub attempts: u32,
    /// `done`, `refused`, `broken` or `canceled`.
    pub outcome: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Why it did not end well.
    pub code: Option<String>,
    /// Whether it asked for a stream.
    pub streamed: bool,
    /// From arrival to the first hand-over to an engine.
    pub queue_ms: Option<f64>,
    /// From arrival to the first token of a stream.
    pub first_token_ms: Option<f64>,
    /// From arrival to the end.
    pub total_ms: f64,
    /// All tokens of the prompt, those from the cache included.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens.
    pub completion_tokens: Option<u64>,
    /// Prompt tokens that came from the engine's cache.
    pub cached_tokens: Option<u64>,
    /// Time spent on the prompt, by the engine's clock.
    pub prompt_ms: Option<f64>,
    /// Time spent generating, by the engine's clock.
    pub decode_ms: Option<f64>,
    /// Whether its body was captured, so that it can be sent again.
    pub has_body: bool,
}

/// One request with what it asked and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CapturedRequest {
    /// The request.
    pub request: RequestView,
    /// Its body as it was sent, secrets masked; null unless bodies are captured.
    pub body: Option<String>,
    /// What the engine answered, secrets masked; null unless bodies are captured, and where it is long.
    pub answer: Option<String>,
}

/// What one key has used of one model on one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// The id of the key; `anyone` and `local` stand for requests without one and for this home's own.
    pub key: String,
    /// What the key's owner called it.
    pub key_name: Option<String>,
    /// The name that was asked for; null for requests that no engine ever had.
    pub model: Option<String>,
    /// The instance that answered; null for requests that no engine ever had.
    pub instance: Option<String>,
    /// All requests, however they ended.
    pub requests: u64,
    /// Those whose whole answer went through.
    pub done: u64,
    /// Those refused before an answer began.
    pub refused: u64,
    /// Those whose answer broke off.
    pub broken: u64,
    /// Those whose client went away.
    pub canceled: u64,
    /// All prompt tokens, those from the cache included.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Prompt tokens from the cache.
    pub cached_tokens: u64,
    /// Time spent waiting, summed, in milliseconds.
    pub queue_ms: f64,
    /// Time from arrival to end, summed, in milliseconds.
    pub total_ms: f64,
}

/// Which requests are wanted; what is absent lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFilter {
    /// Asked for by this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// With this key, by id or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Served by this instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Ended like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Arrived not before (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Ended later than the one with this `seq`, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// A stream of server-sent events: those that end from now on, or from `after` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

impl RequestFilter {
    /// As the query of a URL, with its question mark.
    pub fn query(&self) -> String {
        let texts = [
            ("model", &self.model),
            ("key", &self.key),
            ("instance", &self.instance),
            ("outcome", &self.outcome),
            ("since", &self.since),
        ];
        let numbers = [
            ("after", self.after.map(|after| after.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("follow", self.follow.map(|follow| follow.to_string())),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let pairs: Vec<String> = texts
            .chain(numbers)
            .map(|(name, value)| format!("{name}={}", crate::paths::escape(&value)))
            .collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_written_as_a_query() {
        assert_eq!(RequestFilter::default().query(), "");
        let filter =
            RequestFilter { model: Some("a&b".to_owned()), limit: Some(5), ..RequestFilter::default() };
        assert_eq!(filter.query(), "?model=a%26b&limit=5");
    }
}
