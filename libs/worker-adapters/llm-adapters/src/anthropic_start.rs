//! Putting in the `message_start` that llama-server leaves out.
//!
//! The engine writes `message_start` together with the first decoded token, but skips it when that token
//! ends in the middle of a character. Anthropic's libraries then fail on the first event they see. A stream
//! that is whole goes by byte for byte.

use bytes::{Bytes, BytesMut};
use serde_json::json;

/// Watches the start of one stream.
#[derive(Debug)]
pub struct MessageStartRepair {
    /// What came but is not judged yet; `None` once the stream is known to be whole or mended.
    pending: Option<BytesMut>,
    message_id: String,
    model: String,
}

impl MessageStartRepair {
    /// A first event longer than this is judged whole.
    const HOLD_LIMIT: usize = 64 * 1024;

    pub fn new(request_id: &str, model: &str) -> Self {
        Self {
            pending: Some(BytesMut::new()),
            message_id: format!("msg_{request_id}"),
            model: model.to_owned(),
        }
    }

    /// Takes what came and gives what may go. Comments and empty lines before the first event, which keep the
    /// line open during prefill, are never held back.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        let Some(pending) = &mut self.pending else { return chunk };
        if pending.is_empty() && chunk.starts_with(b"event: message_start\n") {
            self.pending = None;
            return chunk;
        }
        pending.extend_from_slice(&chunk);
        let judged = first_event(pending);
        match judged {
            FirstEvent::Other(at) => self.put_in(at),
            FirstEvent::Start | FirstEvent::Error => self.finish(),
            FirstEvent::NotYet(_) if pending.len() > Self::HOLD_LIMIT => self.finish(),
            FirstEvent::NotYet(at) => pending.split_to(at).freeze(),
        }
    }

    /// What is left when the stream ends.
    pub fn finish(&mut self) -> Bytes {
        self.pending.take().map(BytesMut::freeze).unwrap_or_default()
    }

    fn put_in(&mut self, at: usize) -> Bytes {
        let held = self.finish();
        let mut mended = BytesMut::from(&held[..at]);
        let event = json!({"type": "message_start", "message": {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.model,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }});
        mended.extend_from_slice(format!("event: message_start\ndata: {event}\n\n").as_bytes());
        mended.extend_from_slice(&held[at..]);
        mended.freeze()
    }
}

enum FirstEvent {
    /// Nothing to judge yet; so many bytes in front are comments and may go.
    NotYet(usize),
    Start,
    Error,
    /// An event that cannot come first begins at this byte.
    Other(usize),
}

fn first_event(bytes: &[u8]) -> FirstEvent {
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = bytes[at..at + length].trim_ascii_end();
        if let Some(name) = line.strip_prefix(b"event:") {
            return match name.trim_ascii() {
                b"message_start" | b"ping" => FirstEvent::Start,
                b"error" => FirstEvent::Error,
                _ => FirstEvent::Other(at),
            };
        }
        if !(line.is_empty() || line.starts_with(b":")) {
            return FirstEvent::Start;
        }
        at += length + 1;
    }
    FirstEvent::NotYet(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const WHOLE: &str = ": wait\n\nevent: message_start\ndata: {\"type\":\"message_start\"}\n\n\
        event: content_block_start\ndata: {}\n\n";
    const CUT: &str = ":\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\"}\n\n\
        event: message_stop\ndata: {}\n\n";

    fn through(stream: &str, cuts: &[usize]) -> String {
        let mut repair = MessageStartRepair::new("req-1", "chat");
        let mut out = Vec::new();
        let mut rest = stream.as_bytes();
        for &cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            out.extend_from_slice(&repair.push(Bytes::copy_from_slice(head)));
            rest = tail;
        }
        out.extend_from_slice(&repair.push(Bytes::copy_from_slice(rest)));
        out.extend_from_slice(&repair.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_missing_start_is_put_in_before_the_first_event() {
        let mended = through(CUT, &[]);
        let (comment, rest) = mended.split_at(3);
        assert_eq!(comment, ":\n\n");
        let (start, rest) = rest.split_once("\n\n").unwrap();
        let data = start.strip_prefix("event: message_start\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["message"]["model"], "chat");
        assert_eq!(data["message"]["role"], "assistant");
        assert_eq!(rest, &CUT[3..]);
    }

    #[test]
    fn an_error_stays_the_first_event() {
        let stream = "event: error\ndata: {}\n\n";
        assert_eq!(through(stream, &[5]), stream);
    }

    #[test]
    fn comments_are_not_held_back() {
        let mut repair = MessageStartRepair::new("r", "m");
        assert_eq!(repair.push(Bytes::from_static(b": wait\n\nev")), &b": wait\n\n"[..]);
        assert_eq!(repair.push(Bytes::from_static(b"ent: message_start\n")), &b"event: message_start\n"[..]);
    }

    #[test]
    fn whole_streams_are_not_copied() {
        let mut repair = MessageStartRepair::new("r", "m");
        let chunk = Bytes::from_static(b"event: message_start\ndata: {}\n\n");
        assert_eq!(repair.push(chunk.clone()).as_ptr(), chunk.as_ptr());
    }

    proptest! {
        #[test]
        fn whole_streams_keep_every_byte_however_they_are_cut(cuts in prop::collection::vec(0_usize..30, 0..12)) {
            prop_assert_eq!(through(WHOLE, &cuts), WHOLE);
        }

        #[test]
        fn mending_does_not_depend_on_the_cuts(cuts in prop::collection::vec(0_usize..30, 0..12)) {
            prop_assert_eq!(through(CUT, &cuts), through(CUT, &[]));
        }
    }
}
