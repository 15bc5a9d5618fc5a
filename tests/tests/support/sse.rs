//! Server-sent events, noted as they come.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;
use testkit::{wait_for, wait_for_value};

use super::SOON;

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A stream that is read on a thread of its own; hung up when dropped.
pub(crate) struct EventStream {
    socket: TcpStream,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    status: Option<u16>,
    events: Vec<Event>,
    ended: bool,
}

impl EventStream {
    /// Asks for a stream with further headers and waits until it is answered.
    pub(crate) fn open(address: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(address).expect("somebody listens");
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).expect("the request is taken");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = {
            let (socket, seen) =
                (socket.try_clone().expect("an open socket can be cloned"), Arc::clone(&seen));
            std::thread::spawn(move || {
                // How it ended is seen by what came.
                let _ = read(socket, &seen);
                lock(&seen).ended = true;
            })
        };
        let stream = Self { socket, seen, reader: Some(reader) };
        wait_for("an answer", SOON, || lock(&stream.seen).status.is_some() || stream.has_ended());
        assert_eq!(lock(&stream.seen).status, Some(200), "{path}");
        stream
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.seen).events.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.seen).ended
    }

    /// Waits for the first event of which this holds.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        wait_for_value(what, SOON, || self.events().into_iter().find(|event| is_it(event)))
    }

    /// All events of a stream that ends.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<Event> {
        wait_for("the end of the stream", SOON, || self.has_ended());
        self.events()
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // Closed by the other side already is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(socket: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    lock(seen).status = status;
    let (mut text, mut event) = (Vec::new(), Event::default());
    loop {
        let Some(chunk) = read_chunk(&mut reader)? else { return Ok(()) };
        text.extend(chunk);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match String::from_utf8_lossy(&line).trim_end().split_once(':') {
                Some(("id", id)) => event.id = Some(id.trim().to_owned()),
                Some(("event", name)) => name.trim().clone_into(&mut event.name),
                Some(("data", data)) => event.data = serde_json::from_str(data).map_err(io::Error::other)?,
                // A comment.
                Some(_) => {}
                None if event == Event::default() => {}
                None => lock(seen).events.push(std::mem::take(&mut event)),
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
