//! A streamed chat whose events are noted with the moment of their arrival.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::wait_for;

use super::SOON;

/// A stream that is being read on a thread of its own; hung up when dropped.
pub(crate) struct Stream {
    socket: TcpStream,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    events: Vec<(Instant, String)>,
    ended: Option<io::Result<()>>,
}

/// What came over a stream that is over.
pub(crate) struct Finished {
    /// The payloads of all `data:` lines.
    pub(crate) events: Vec<String>,
    /// The longest time between two of them.
    pub(crate) longest_pause: Duration,
    /// Whether the body ended as HTTP wants it.
    pub(crate) whole: bool,
}

impl Stream {
    /// Asks `address` for a chat of exactly `tokens` tokens and waits until the first one is there.
    pub(crate) fn chat(address: &str, model: &str, tokens: u32) -> Self {
        let body = json!({
            "model": model, "messages": [{"role": "user", "content": "hello"}],
            "stream": true, "max_tokens": tokens, "ignore_eos": true,
        });
        let mut socket = TcpStream::connect(address).expect("somebody listens");
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).expect("the request is taken");
        socket.write_all(body.as_bytes()).expect("the request is taken");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = {
            let (socket, seen) =
                (socket.try_clone().expect("an open socket can be cloned"), Arc::clone(&seen));
            std::thread::spawn(move || {
                let result = read_events(socket, &seen);
                lock(&seen).ended = Some(result);
            })
        };
        let stream = Self { socket, seen, reader: Some(reader) };
        wait_for("the beginning of the stream", SOON, || stream.event_count() > 0 || stream.has_ended());
        if let Some(Err(error)) = &lock(&stream.seen).ended {
            panic!("the stream has no beginning: {error}");
        }
        stream
    }

    pub(crate) fn event_count(&self) -> usize {
        lock(&self.seen).events.len()
    }

    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.seen).ended.is_some()
    }

    /// Waits until ten more events have come: it flows.
    #[track_caller]
    pub(crate) fn wait_for_more(&self) {
        let before = self.event_count();
        wait_for("more of the stream", SOON, || {
            let seen = lock(&self.seen);
            assert!(seen.ended.is_none(), "the stream is over: {:?} {:?}", seen.ended, seen.events.last());
            seen.events.len() >= before + 10
        });
    }

    /// Waits for the end, whatever it is.
    #[track_caller]
    pub(crate) fn finish(self, limit: Duration) -> Finished {
        wait_for("the end of the stream", limit, || self.has_ended());
        let seen = lock(&self.seen);
        let pauses = seen.events.windows(2).map(|pair| pair[1].0 - pair[0].0);
        Finished {
            longest_pause: pauses.max().unwrap_or_default(),
            events: seen.events.iter().map(|(_, data)| data.clone()).collect(),
            whole: matches!(seen.ended, Some(Ok(()))),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Closed by the other side already is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Finished {
    /// How many tokens of text came.
    pub(crate) fn tokens(&self) -> usize {
        let text = |event: &&String| {
            let event: Value = serde_json::from_str(event).unwrap_or_default();
            event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
        };
        self.events.iter().filter(text).count()
    }

    /// Every token and the end of a stream that nothing disturbed.
    #[track_caller]
    pub(crate) fn assert_complete(&self, tokens: usize) {
        assert_eq!(self.events.last().map(String::as_str), Some("[DONE]"));
        assert!(self.whole, "the body broke off");
        assert_eq!(self.tokens(), tokens);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_events(socket: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.contains(" 200 ") {
        let mut rest = String::new();
        let _ = reader.take(4096).read_to_string(&mut rest);
        return Err(io::Error::other(format!("{line}{rest}")));
    }
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let mut text = Vec::new();
    loop {
        let Some(chunk) = read_chunk(&mut reader)? else { return Ok(()) };
        text.extend(chunk);
        let arrival = Instant::now();
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if let Some(data) = String::from_utf8_lossy(&line).trim_end().strip_prefix("data: ") {
                lock(seen).events.push((arrival, data.to_owned()));
            }
        }
    }
}

/// The next chunk of a chunked body; `None` at its proper end.
fn read_chunk(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut size = String::new();
    if reader.read_line(&mut size)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}
