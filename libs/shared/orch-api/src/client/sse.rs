//! Server-sent events as they come, one by one.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use orch_core::{ExitCode, Failure};

use super::Client;
use super::wire::{ANSWER_LIMIT, Reader, Whole};

/// A server says something at least every 15 s; one that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest event that is read.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEvent {
    /// What to name when asking for those behind it.
    pub id: Option<String>,
    /// What it is.
    pub name: String,
    /// What it says.
    pub data: String,
}

/// How a stream of events ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Whoever reads has heard enough.
    Enough,
    /// The server closed it in good order.
    Closed,
    /// The connection broke, or could not be made: there may be more to hear.
    Broken(Failure),
}

impl Client {
    /// The events under a path, those behind `last` alone where one is given, until `each` answers `false` or the
    /// stream ends. A refusal is a failure.
    pub async fn listen(
        &self,
        path: &str,
        last: Option<&str>,
        each: &mut (dyn FnMut(SentEvent) -> bool + Send),
    ) -> Result<StreamEnd, Failure> {
        let mut request = self.request(Method::GET, path, Bytes::new())?;
        if let Some(last) = last.and_then(|last| last.parse().ok()) {
            request.headers_mut().insert("last-event-id", last);
        }
        match self.converse(request, Events { each }).await {
            Ok(Heard::Stream(end)) => Ok(end),
            Ok(Heard::Refusal(status, text)) => {
                super::read_answer::<()>(status, &text).map(|()| StreamEnd::Closed)
            }
            Err(failure) if failure.exit == ExitCode::DaemonUnreachable => Ok(StreamEnd::Broken(failure)),
            Err(failure) => Err(failure),
        }
    }
}

enum Heard {
    Stream(StreamEnd),
    Refusal(StatusCode, Bytes),
}

/// Reads an answer event by event.
struct Events<'e> {
    each: &'e mut (dyn FnMut(SentEvent) -> bool + Send),
}

impl Reader for Events<'_> {
    type Read = Heard;

    fn head_limit(&self) -> Duration {
        ANSWER_LIMIT
    }

    async fn read(self, response: Response<Incoming>) -> Result<Heard, String> {
        let status = response.status();
        if status != StatusCode::OK {
            let (status, text) = Whole { limit: ANSWER_LIMIT }.read(response).await?;
            return Ok(Heard::Refusal(status, text));
        }
        let mut body = response.into_body();
        let mut lines = Lines::default();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame()).await;
            let Some(frame) = frame.map_err(|_| "it has gone silent".to_owned())? else {
                return Ok(Heard::Stream(StreamEnd::Closed));
            };
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            lines.take(&data)?;
            while let Some(event) = lines.next_event() {
                if !(self.each)(event) {
                    return Ok(Heard::Stream(StreamEnd::Enough));
                }
            }
        }
    }
}

/// Bytes on their way to events.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// So much of the buffer has been read.
    read: usize,
    event: SentEvent,
    has_data: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.buffer.drain(..std::mem::take(&mut self.read));
        if self.buffer.len() + bytes.len() + self.event.data.len() > MAX_EVENT {
            return Err(format!("it sends an event of more than {MAX_EVENT} bytes"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event that is whole.
    fn next_event(&mut self) -> Option<SentEvent> {
        while let Some(length) = self.buffer[self.read..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[self.read..self.read + length]).into_owned();
            self.read += length + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.event.name),
                "data" => {
                    if self.has_data {
                        self.event.data.push('\n');
                    }
                    self.has_data = true;
                    self.event.data.push_str(value);
                }
                // Comments keep the line; other fields say nothing to us.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&str]) -> Vec<SentEvent> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.take(piece.as_bytes()).unwrap();
            found.extend(std::iter::from_fn(|| lines.next_event()));
        }
        found
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: step.started\ndata: {\"a\":1}\n\ndata: one\r\ndata:two\r\n\r\nid: 9\n\n";
        let whole = events(&[text]);
        let told = SentEvent {
            id: Some("7".to_owned()),
            name: "step.started".to_owned(),
            data: "{\"a\":1}".to_owned(),
        };
        assert_eq!(whole, [told, SentEvent { data: "one\ntwo".to_owned(), ..SentEvent::default() }]);
        for cut in 0..text.len() {
            assert_eq!(events(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..64).take_while(|_| lines.take(&piece).is_ok()).count();
        assert!(taken * piece.len() <= MAX_EVENT, "{taken}");
    }
}
