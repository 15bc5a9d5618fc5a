//! Letting only whole server-sent events go by.
//!
//! An engine that dies in the middle of an event would leave half of one in the client's parser, and the
//! error event that follows would be glued to it. So the unfinished end of a stream waits here until the
//! rest comes. Engines flush whole events, so in practice nothing waits and nothing is copied.

use bytes::{Bytes, BytesMut};

/// Splits a stream of bytes behind its last complete event. The bytes that come out are the bytes that went
/// in, in the same order.
#[derive(Debug)]
pub struct EventAligner {
    held: BytesMut,
    separator: Separator,
}

#[derive(Clone, Copy, Debug)]
enum Separator {
    /// Server-sent events end with an empty line.
    EmptyLine,
    /// Lines of JSON end with a line feed.
    LineFeed,
}

impl EventAligner {
    /// An unfinished event longer than this is let go: memory is bounded before neatness.
    const HOLD_LIMIT: usize = 256 * 1024;

    /// For `text/event-stream`.
    pub fn events() -> Self {
        Self { held: BytesMut::new(), separator: Separator::EmptyLine }
    }

    /// For `application/x-ndjson`.
    pub fn lines() -> Self {
        Self { held: BytesMut::new(), separator: Separator::LineFeed }
    }

    /// Takes what came and gives what may go; empty while an event is unfinished.
    pub fn push(&mut self, mut chunk: Bytes) -> Bytes {
        if self.held.is_empty() {
            let end = self.separator.last_end(&chunk);
            if end == chunk.len() {
                return chunk;
            }
            let whole = chunk.split_to(end);
            self.held.extend_from_slice(&chunk);
            return self.let_go_if_long(whole);
        }
        self.held.extend_from_slice(&chunk);
        let end = self.separator.last_end(&self.held);
        let whole = self.held.split_to(end).freeze();
        self.let_go_if_long(whole)
    }

    /// What is left at the good end of a stream.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    fn let_go_if_long(&mut self, whole: Bytes) -> Bytes {
        if whole.is_empty() && self.held.len() > Self::HOLD_LIMIT { self.finish() } else { whole }
    }
}

impl Separator {
    /// The position behind the last complete event; 0 if none is complete.
    fn last_end(self, bytes: &[u8]) -> usize {
        match self {
            Separator::LineFeed => memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1),
            Separator::EmptyLine => memchr::memrchr_iter(b'\n', bytes)
                .find(|&at| ends_empty_line(&bytes[..at]))
                .map_or(0, |at| at + 1),
        }
    }
}

/// Whether a line feed behind these bytes closes an empty line.
fn ends_empty_line(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"\r").unwrap_or(before);
    before.ends_with(b"\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_events_go_by_untouched() {
        let mut aligner = EventAligner::events();
        let event = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
        let out = aligner.push(event.clone());
        assert_eq!(out.as_ptr(), event.as_ptr(), "not copied");
        assert_eq!(out, event);
        assert!(aligner.finish().is_empty());
    }

    #[test]
    fn the_unfinished_end_waits_for_its_rest() {
        let mut aligner = EventAligner::events();
        assert_eq!(aligner.push(Bytes::from_static(b"data: 1\n\ndata: {\"a")), &b"data: 1\n\n"[..]);
        assert_eq!(aligner.push(Bytes::from_static(b"\":1}\n")), &b""[..]);
        assert_eq!(aligner.push(Bytes::from_static(b"\n")), &b"data: {\"a\":1}\n\n"[..]);
    }

    #[test]
    fn carriage_returns_are_part_of_the_separator() {
        let mut aligner = EventAligner::events();
        assert_eq!(aligner.push(Bytes::from_static(b"data: 1\r\n\r\ndata")), &b"data: 1\r\n\r\n"[..]);
    }

    #[test]
    fn lines_are_events_of_their_own() {
        let mut aligner = EventAligner::lines();
        assert_eq!(aligner.push(Bytes::from_static(b"{}\n{\"a\"")), &b"{}\n"[..]);
        assert_eq!(aligner.finish(), &b"{\"a\""[..]);
    }

    #[test]
    fn an_endless_event_is_let_go() {
        let mut aligner = EventAligner::events();
        let long = Bytes::from(vec![b'x'; EventAligner::HOLD_LIMIT + 1]);
        assert_eq!(aligner.push(long.clone()), long);
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(chunks in prop::collection::vec("[a\r\n]{0,9}", 0..20), lines: bool) {
            let mut aligner = if lines { EventAligner::lines() } else { EventAligner::events() };
            let mut out = Vec::new();
            for chunk in &chunks {
                let whole = aligner.push(Bytes::from(chunk.clone()));
                prop_assert!(whole.is_empty() || whole.ends_with(b"\n"));
                out.extend_from_slice(&whole);
            }
            out.extend_from_slice(&aligner.finish());
            prop_assert_eq!(out, chunks.concat().into_bytes());
        }
    }
}
