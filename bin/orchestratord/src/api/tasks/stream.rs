//! An engine's stream, read as far as a task needs it.

use orch_api::{ErrorBody, TaskEnd};
use orch_core::ErrorCode;
use serde_json::Value;

/// No event of a stream is longer.
const LONGEST_EVENT: usize = 1024 * 1024;

/// What a stream says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// It waits behind so many.
    Waiting(u64),
    /// A piece of text, and what the engine counted so far.
    Piece { text: String, counted: Option<TaskEnd> },
    /// It is complete.
    Complete,
    /// It failed.
    Failed(ErrorBody),
}

/// Puts events together from whatever pieces their bytes come in.
#[derive(Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
}

impl EventReader {
    /// What is complete with these bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            said.extend(of_line(self.line.strip_suffix(b"\r").unwrap_or(&self.line)));
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST_EVENT {
            self.line.clear();
            let message = format!("the engine sent an event of more than {LONGEST_EVENT} bytes");
            said.push(Said::Failed(ErrorBody::new(ErrorCode::WorkerReset, message)));
        }
        said
    }
}

/// Engines write the data of an event in one line.
fn of_line(line: &[u8]) -> Option<Said> {
    if let Some(comment) = line.strip_prefix(b":") {
        let words = std::str::from_utf8(comment).ok()?;
        let position = words.trim().strip_prefix("queued ")?.trim();
        return position.parse().ok().map(Said::Waiting);
    }
    let data = line.strip_prefix(b"data:")?.trim_ascii();
    if data == b"[DONE]" {
        return Some(Said::Complete);
    }
    let Ok(chunk) = serde_json::from_slice::<Value>(data) else {
        let message = "the engine sent an event that is not JSON";
        return Some(Said::Failed(ErrorBody::new(ErrorCode::WorkerReset, message)));
    };
    if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
        return Some(Said::Failed(refusal(error, ErrorCode::WorkerReset)));
    }
    let choice = &chunk["choices"][0];
    let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or("");
    Some(Said::Piece { text: text.to_owned(), counted: counted(&chunk) })
}

fn counted(chunk: &Value) -> Option<TaskEnd> {
    let timings = chunk.get("timings")?;
    let decode = timings["predicted_ms"].as_f64().filter(|it| it.is_finite() && *it >= 0.0)?;
    Some(TaskEnd { tokens_out: timings["predicted_n"].as_u64()?, decode_ms: decode.round() as u64 })
}

/// An error in OpenAI's words as one of ours.
pub(super) fn refusal(error: &Value, otherwise: ErrorCode) -> ErrorBody {
    let code = match error["code"].as_str() {
        Some("context_length_exceeded") => ErrorCode::ContextExceeded,
        Some(label) => ErrorCode::from_label(label).unwrap_or(otherwise),
        None => otherwise,
    };
    let message = error["message"].as_str().unwrap_or("the engine told no reason");
    ErrorBody::new(code, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = ": queued 3\n\n: loading\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}\"}}]}\n\n\
        data: {\"choices\":[{\"text\":\"llo\"}],\"timings\":{\"predicted_n\":7,\"predicted_ms\":12.6}}\r\n\r\ndata: [DONE]\n\n";

    fn whole() -> Vec<Said> {
        vec![
            Said::Waiting(3),
            Said::Piece { text: "h\u{e9}".to_owned(), counted: None },
            Said::Piece { text: "llo".to_owned(), counted: Some(TaskEnd { tokens_out: 7, decode_ms: 13 }) },
            Said::Complete,
        ]
    }

    #[test]
    fn an_error_in_a_stream_keeps_its_code() {
        let mut reader = EventReader::default();
        let said = reader
            .read(b"data: {\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}\n");
        let [Said::Failed(error)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((error.error_code(), error.message.as_str()), (ErrorCode::ContextExceeded, "too long"));
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut reader = EventReader::default();
        let said = (0..20).flat_map(|_| reader.read(&vec![b'x'; 100_000])).next();
        assert!(matches!(said, Some(Said::Failed(_))));
        assert!(reader.line.len() <= LONGEST_EVENT);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_stream_comes(cuts in prop::collection::vec(1_usize..40, 0..40)) {
            let mut reader = EventReader::default();
            let (mut rest, mut said) = (STREAM.as_bytes(), Vec::new());
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                said.extend(reader.read(piece));
                rest = left;
            }
            said.extend(reader.read(rest));
            prop_assert_eq!(said, whole());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            EventReader::default().read(&bytes);
        }
    }
}
