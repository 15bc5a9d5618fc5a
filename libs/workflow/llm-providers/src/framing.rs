//! Events of an answer out of pieces of any size: server-sent events, or one JSON document a line.

use bytes::BytesMut;
use llm_adapters::{Event, EventReader, TooLong};
use memchr::memchr;

/// How a stream is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    ServerSentEvents,
    Lines,
}

/// Puts events together.
#[derive(Debug)]
pub(crate) enum Frames {
    Events(EventReader),
    Lines(BytesMut),
}

impl Frames {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::ServerSentEvents => Self::Events(EventReader::default()),
            Framing::Lines => Self::Lines(BytesMut::new()),
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        match self {
            Self::Events(reader) => reader.push(chunk),
            Self::Lines(unread) => unread.extend_from_slice(chunk),
        }
    }

    /// The next whole event of what came so far.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        match self {
            Self::Events(reader) => reader.next_event(),
            Self::Lines(unread) => {
                while let Some(end) = memchr(b'\n', unread) {
                    let line = unread.split_to(end + 1);
                    if let Some(event) = line_event(&line) {
                        return Ok(Some(event));
                    }
                }
                if unread.len() > EventReader::LIMIT { Err(TooLong) } else { Ok(None) }
            }
        }
    }

    /// The last line, which need not end with a line break.
    pub(crate) fn rest(&mut self) -> Option<Event> {
        match self {
            Self::Events(_) => None,
            Self::Lines(unread) => line_event(&unread.split()),
        }
    }
}

fn line_event(line: &[u8]) -> Option<Event> {
    let data = line.trim_ascii().to_vec();
    (!data.is_empty()).then(|| Event { name: String::new(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_any_pieces() {
        let text = b"{\"a\":1}\n\n {\"b\":2} \r\n{\"c\":3}";
        for size in 1..text.len() {
            let mut frames = Frames::new(Framing::Lines);
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                frames.push(piece);
                while let Some(event) = frames.next().unwrap() {
                    seen.push(event.data);
                }
            }
            seen.extend(frames.rest().map(|event| event.data));
            assert_eq!(seen, [&b"{\"a\":1}"[..], b"{\"b\":2}", b"{\"c\":3}"], "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut frames = Frames::new(Framing::Lines);
        frames.push(&vec![b'x'; EventReader::LIMIT + 1]);
        assert_eq!(frames.next(), Err(TooLong));
    }
}
