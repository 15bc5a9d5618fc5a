//! One client's connection: reading requests, writing answers, noticing that the client has left.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer that is not a stream.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json; charset=utf-8", body: body.to_string().into_bytes() }
    }

    pub(crate) fn text(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, body: body.into_bytes() }
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    /// Read from the socket, but not yet used.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The next request; `None` when the client has closed.
    pub(crate) fn read_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((mut request, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                if request.header("expect").is_some() {
                    self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                request.body = self.read_body(&request)?;
                return Ok(Some(request));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::Error::other("the request's head is too large"));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn read_body(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        if request.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        self.take(length)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = loop {
                let parsed = httparse::parse_chunk_size(&self.buffer);
                match parsed.map_err(|_| io::Error::other("a chunk without a size"))? {
                    httparse::Status::Complete((head, size)) => {
                        self.buffer.drain(..head);
                        break usize::try_from(size).unwrap_or(usize::MAX);
                    }
                    httparse::Status::Partial if self.fill()? => {}
                    httparse::Status::Partial => return Err(ErrorKind::UnexpectedEof.into()),
                }
            };
            body.extend(self.take(size)?);
            self.take(2)?; // the line end after the chunk
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_BODY {
            return Err(io::Error::other("the request's body is too large"));
        }
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads what there is; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    /// Writes a whole answer. As with the real one, errors close the connection.
    pub(crate) fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let keep = if answer.status < 400 { "Keep-Alive: timeout=5, max=100" } else { "Connection: close" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nServer: llama.cpp\r\nContent-Type: {}\r\nContent-Length: {}\r\n{keep}\r\n\r\n",
            answer.status,
            reason(answer.status),
            answer.content_type,
            answer.body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&answer.body);
        self.stream.write_all(&bytes)?;
        if answer.status < 400 { Ok(()) } else { Err(ErrorKind::ConnectionAborted.into()) }
    }

    pub(crate) fn begin_stream(&mut self) -> io::Result<()> {
        self.stream.write_all(
            b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nX-Accel-Buffering: no\r\nContent-Type: text/event-stream\r\n\
              Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n",
        )
    }

    /// One chunk of a stream.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.stream.write_all(&framed)
    }

    pub(crate) fn end_stream(&mut self) -> io::Result<()> {
        self.stream.write_all(b"0\r\n\r\n")
    }

    /// Closes at once, without an end.
    pub(crate) fn abort(&self) -> io::Error {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        ErrorKind::ConnectionAborted.into()
    }

    /// An error once the client has closed its side.
    pub(crate) fn check_peer(&self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(0) => Err(ErrorKind::BrokenPipe.into()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits, unless the client leaves.
    pub(crate) fn pause(&self, time: Duration) -> io::Result<()> {
        const LOOK_AT_CLIENT: Duration = Duration::from_millis(10);
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_AT_CLIENT));
            self.check_peer()?;
        }
    }

    /// Never answers; comes back when the client has had enough.
    pub(crate) fn hang(&self) -> io::Error {
        loop {
            if let Err(left) = self.pause(Duration::from_hours(1)) {
                return left;
            }
        }
    }
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(buffer).map_err(|error| io::Error::other(error.to_string()))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let target = head.path.unwrap_or("/");
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers =
                head.headers.iter().map(|it| (it.name.to_ascii_lowercase(), text(it.value))).collect();
            let method = head.method.unwrap_or("GET").to_owned();
            let (path, query) = (path.to_owned(), query.to_owned());
            Ok(Some((Request { method, path, query, headers, body: Vec::new() }, length)))
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}
