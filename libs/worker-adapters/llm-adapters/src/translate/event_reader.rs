//! Server-sent events out of pieces of any size.

use bytes::BytesMut;
use memchr::memchr;

/// One event: its name, empty where it has none, and its data.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: Vec<u8>,
}

/// An event, or what is left of it, is longer than the limit.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Puts events together, line by line.
#[derive(Debug, Default)]
pub struct EventReader {
    unread: BytesMut,
    name: String,
    data: Vec<u8>,
    has_data: bool,
}

impl EventReader {
    /// The longest event that is taken.
    pub const LIMIT: usize = 8 * 1024 * 1024;

    pub fn push(&mut self, chunk: &[u8]) {
        self.unread.extend_from_slice(chunk);
    }

    /// The next whole event of what came so far. Comments keep a line open and say nothing.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(end) = memchr(b'\n', &self.unread) {
            let line = self.unread.split_to(end + 1);
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if line.is_empty() {
                if let Some(event) = self.take() {
                    return Ok(Some(event));
                }
            } else {
                self.field(line);
            }
            if self.data.len() > Self::LIMIT {
                return Err(TooLong);
            }
        }
        if self.unread.len() > Self::LIMIT { Err(TooLong) } else { Ok(None) }
    }

    fn field(&mut self, line: &[u8]) {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }

    /// The event that an empty line ends; without data there is none.
    fn take(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = EventReader::default();
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(event) = reader.next_event().unwrap() {
                events.push((event.name, String::from_utf8_lossy(&event.data).into_owned()));
            }
        }
        events
    }

    #[test]
    fn names_data_and_comments_are_told_apart() {
        let stream =
            b": ping\n\nevent: a\ndata: 1\ndata:2\n\nid: 7\n\r\ndata: 3\r\n\r\nevent: lost\n\ndata: cut";
        let expected = [("a", "1\n2"), ("", "3")].map(|(name, data)| (name.to_owned(), data.to_owned()));
        assert_eq!(events(&[stream]), expected);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = EventReader::default();
        reader.push(b"data: ");
        let long = vec![b'x'; EventReader::LIMIT];
        reader.push(&long);
        assert_eq!(reader.next_event(), Err(TooLong));
        let mut reader = EventReader::default();
        reader.push(b"data: x\ndata: ");
        reader.push(&long);
        reader.push(b"\n");
        assert_eq!(reader.next_event(), Err(TooLong), "line by line, too");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(event|data|:|\u{e9}|x|\r?\n|\n\n){0,40}", cuts in prop::collection::vec(1_usize..9, 0..30)) {
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(events(&chunks), events(&[text.as_bytes()]));
        }
    }
}
