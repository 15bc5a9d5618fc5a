//! One client's connection: requests in, answers out, and the moment at which the client leaves.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A request, read whole.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Connection {
    stream: TcpStream,
    /// Read from the socket, but not yet used.
    buffer: Vec<u8>,
    /// The most bytes written at once; 0: as many as there are.
    pub(crate) split: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), split: 0 })
    }

    /// The next request; `None` when the client has closed.
    pub(crate) async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((mut request, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                request.body = self.body(&request).await?;
                return Ok(Some(request));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(io::Error::other("the request's head is too large"));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn body(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        if request.headers.get("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
            return self.chunks().await;
        }
        let length = request.headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        self.take(length).await
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer);
            let parsed = parsed.map_err(|_| io::Error::other("a chunk without a size"))?;
            let httparse::Status::Complete((head, size)) = parsed else {
                if self.fill().await? {
                    continue;
                }
                return Err(ErrorKind::UnexpectedEof.into());
            };
            self.buffer.drain(..head);
            body.extend(self.take(usize::try_from(size).unwrap_or(usize::MAX)).await?);
            self.take(2).await?; // the line end after the chunk
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_BODY {
            return Err(io::Error::other("the request's body is too large"));
        }
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads what there is; `false` at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.split == 0 {
            return self.stream.write_all(bytes).await;
        }
        for piece in bytes.chunks(self.split) {
            self.stream.write_all(piece).await?;
            // So that the reader may see this piece without the next.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits, unless the client leaves.
    pub(crate) async fn pause(&self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.left() => Err(ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Returns once the client has closed its side.
    pub(crate) async fn left(&self) {
        // More requests on the same connection do not mean that it has closed.
        if let Ok(1..) = self.stream.peek(&mut [0]).await {
            std::future::pending::<()>().await;
        }
    }
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(buffer).map_err(|error| io::Error::other(error.to_string()))? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers =
                head.headers.iter().map(|it| (it.name.to_ascii_lowercase(), text(it.value))).collect();
            let method = head.method.unwrap_or("GET").to_owned();
            let path = head.path.unwrap_or("/").to_owned();
            Ok(Some((Request { method, path, headers, body: Vec::new() }, length)))
        }
    }
}
