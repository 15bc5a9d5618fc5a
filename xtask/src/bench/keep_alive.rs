//! One HTTP connection that stays, and how long each answer on it takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// No answer that is measured takes longer; one that does has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// A client that sends one request after the other over the same connection, connecting anew, outside what is
/// measured, when the server closes it.
pub(super) struct KeepAlive {
    address: String,
    connection: Option<BufReader<TcpStream>>,
    request: Vec<u8>,
    body: Vec<u8>,
}

impl KeepAlive {
    /// Always posts the same JSON, with a key.
    pub(super) fn new(address: &str, path: &str, key: &str, json: &str) -> Self {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\n\
             content-length: {}\r\n\r\n{json}",
            json.len()
        );
        Self {
            address: address.to_owned(),
            connection: None,
            request: request.into_bytes(),
            body: Vec::new(),
        }
    }

    /// The time from the request's first byte out to the answer's last byte in.
    pub(super) fn exchange(&mut self) -> Result<Duration> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        self.body.clear();
        let begin = Instant::now();
        connection.get_mut().write_all(&self.request)?;
        let head = read_head(&mut connection)?;
        read_body(&mut connection, &head, &mut self.body)?;
        let elapsed = begin.elapsed();
        ensure!(
            head.status == 200,
            "{} answers {}: {}",
            self.address,
            head.status,
            String::from_utf8_lossy(&self.body)
        );
        if !head.closes {
            self.connection = Some(connection);
        }
        Ok(elapsed)
    }

    /// How many events the last answer, a stream, had.
    pub(super) fn events(&self) -> usize {
        let mut lines = self.body.split(|&byte| byte == b'\n');
        let count = lines.by_ref().filter(|line| line.starts_with(b"data: ")).count();
        count.saturating_sub(usize::from(self.body.ends_with(b"data: [DONE]\n\n")))
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)
            .with_context(|| format!("{} does not take a connection", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(BufReader::with_capacity(64 * 1024, stream))
    }
}

#[derive(Debug, Default, PartialEq)]
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
}

fn read_head(from: &mut impl BufRead) -> Result<Head> {
    let mut head = Head::default();
    let first = read_line(from)?;
    head.status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(head);
        }
        let (name, value) = line.split_once(':').context("a header has a name and a value")?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = Some(value.parse().context("a length is a number")?),
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => head.closes |= value.eq_ignore_ascii_case("close"),
            // llama-server closes the connection after a stream, and does not say so.
            "content-type" => head.closes |= value.starts_with("text/event-stream"),
            _ => {}
        }
    }
}

fn read_body(from: &mut impl BufRead, head: &Head, body: &mut Vec<u8>) -> Result<()> {
    if let Some(length) = head.length {
        return read_exactly(from, length, body);
    }
    if !head.chunked {
        bail!("an answer without a length cannot be followed by another");
    }
    loop {
        let line = read_line(from)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .context("a chunk begins with its size")?;
        read_exactly(from, size, body)?;
        ensure!(read_line(from)?.is_empty(), "a chunk ends with an empty line");
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(from: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> Result<()> {
    let begin = body.len();
    body.resize(begin + length, 0);
    from.read_exact(&mut body[begin..]).context("the answer broke off")
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    const LONGEST: u64 = 64 * 1024;
    let mut line = Vec::new();
    from.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
    ensure!(line.ends_with(b"\r\n"), "the answer broke off");
    line.truncate(line.len() - 2);
    String::from_utf8(line).context("a header is text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(answer: &str) -> Result<(Head, String)> {
        let mut from = answer.as_bytes();
        let head = read_head(&mut from)?;
        let mut body = Vec::new();
        read_body(&mut from, &head, &mut body)?;
        assert!(from.is_empty(), "the next answer's bytes were eaten or some were left");
        Ok((head, String::from_utf8(body).unwrap()))
    }

    #[test]
    fn an_answer_with_a_length_ends_there() {
        let (head, body) = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((head.status, head.closes, body.as_str()), (200, false, "abc"));
    }

    #[test]
    fn chunks_are_joined_up_to_the_empty_one() {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                      3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        let (head, body) = parse(answer).unwrap();
        assert_eq!((head.closes, body.as_str()), (true, "abcde"));
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").is_err());
        assert!(parse("HTTP/1.1 200").is_err());
    }

    #[test]
    fn the_end_mark_is_no_event() {
        let mut client = KeepAlive::new("localhost:1", "/", "key", "{}");
        client.body = b"data: {\"a\": 1}\n\ndata: {}\n\ndata: [DONE]\n\n".to_vec();
        assert_eq!(client.events(), 2);
    }
}
