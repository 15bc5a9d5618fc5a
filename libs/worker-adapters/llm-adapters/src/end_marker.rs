//! Telling a stream that ended from one that was cut.
//!
//! When an engine dies, the connection may still close in good order, and a client would take half an answer
//! for a whole one. But the protocols announce their end inside the stream.

use memchr::memmem;

/// How a stream of events announces its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMarker {
    /// OpenAI's `data: [DONE]`.
    Done,
    /// Anthropic's `message_stop`.
    MessageStop,
}

impl EndMarker {
    /// The marker that streams at this path end with, where one is certain.
    pub fn of_path(path: &str) -> Option<EndMarker> {
        match path {
            "/v1/chat/completions" | "/chat/completions" | "/v1/completions" => Some(EndMarker::Done),
            "/v1/messages" => Some(EndMarker::MessageStop),
            _ => None,
        }
    }

    /// Whether the last bytes of a stream hold the marker, or an error that the engine itself ended it with.
    /// Neither can be part of generated text, where quotes are escaped.
    pub fn ends(self, tail: &[u8]) -> bool {
        let marked = match self {
            EndMarker::Done => tail.trim_ascii_end().ends_with(b"[DONE]"),
            EndMarker::MessageStop => memmem::find(tail, b"\"message_stop\"").is_some(),
        };
        marked || memmem::find(tail, b"\"error\":").is_some() || memmem::find(tail, b"\"error\",").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_end_is_an_end() {
        assert!(EndMarker::Done.ends(b"data: {}\n\ndata: [DONE]\n\n"));
        assert!(EndMarker::MessageStop.ends(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    }

    #[test]
    fn an_error_of_the_engine_is_an_end() {
        assert!(EndMarker::Done.ends(b"data: {\"error\":{\"code\":500}}\n\n"));
        assert!(EndMarker::MessageStop.ends(b"event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"));
    }

    #[test]
    fn half_an_answer_is_none_even_if_it_talks_of_the_end() {
        assert!(!EndMarker::Done.ends(b"data: {\"content\":\"data: [DONE]\"}\n\n"));
        assert!(!EndMarker::Done.ends(b"data: {\"content\":\"\\\"error\\\": 1\"}\n\n"));
        assert!(!EndMarker::MessageStop.ends(b"data: {\"text\":\"\\\"message_stop\\\"\"}\n\n"));
    }
}
