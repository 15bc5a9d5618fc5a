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
    /// The event that closes one of OpenAI's `responses`, be it completed, incomplete or failed.
    ResponseOver,
    /// llama-server's own: the last object says `stop`, and how long it all took.
    Stopped,
}

impl EndMarker {
    /// The marker that streams at this path end with, where one is certain.
    pub fn of_path(path: &str) -> Option<EndMarker> {
        match path {
            "/v1/chat/completions" | "/chat/completions" | "/v1/completions" => Some(EndMarker::Done),
            "/v1/messages" => Some(EndMarker::MessageStop),
            "/v1/responses" | "/responses" => Some(EndMarker::ResponseOver),
            "/completion" | "/completions" | "/infill" => Some(EndMarker::Stopped),
            _ => None,
        }
    }

    /// Whether the last bytes of a stream hold the marker, or an error that the engine itself ended it with.
    /// Neither can be part of generated text, where quotes are escaped.
    pub fn ends(self, tail: &[u8]) -> bool {
        let holds = |word: &[u8]| memmem::find(tail, word).is_some();
        let marked = match self {
            EndMarker::Done => tail.trim_ascii_end().ends_with(b"[DONE]"),
            EndMarker::MessageStop => holds(b"\"message_stop\""),
            // The last event repeats the whole answer, so its beginning may lie further back than can be seen.
            EndMarker::ResponseOver => {
                let whole =
                    [&b"\"response.completed\""[..], b"\"response.incomplete\"", b"\"response.failed\""];
                whole.into_iter().any(holds) || holds(b"\"output_tokens\":")
            }
            EndMarker::Stopped => holds(b"\"stop\":true") || holds(b"\"timings\":"),
        };
        marked || holds(b"\"error\":") || holds(b"\"error\",")
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
    fn an_end_is_found_behind_an_answer_that_is_longer_than_what_can_be_seen() {
        assert!(
            EndMarker::ResponseOver.ends(b"data: {\"type\":\"response.incomplete\",\"response\":{}}\n\n")
        );
        assert!(
            EndMarker::ResponseOver
                .ends(b"...text\"}]}],\"usage\":{\"input_tokens\":2,\"output_tokens\":3}}}\n\n")
        );
        assert!(EndMarker::Stopped.ends(b"data: {\"content\":\"\",\"stop\":true}\n\n"));
        assert!(EndMarker::Stopped.ends(b"...\"prompt\":\"x\",\"timings\":{\"prompt_n\":1}}\n\n"));
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
        assert!(
            !EndMarker::ResponseOver
                .ends(b"data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n")
        );
        assert!(!EndMarker::Stopped.ends(b"data: {\"content\":\"\\\"stop\\\":true\",\"stop\":false}\n\n"));
        assert!(!EndMarker::MessageStop.ends(b"data: {\"text\":\"\\\"message_stop\\\"\"}\n\n"));
    }
}
