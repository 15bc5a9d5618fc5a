//! One connection to an engine, driven by whoever uses it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, response};
use http_body::SizeHint;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::codec::{AnswerHead, Framing, RequestHead, read_head, write_head};

/// Room for one read. Small, because a waiting stream holds it; doubled whenever it was filled.
const FIRST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = 64 * 1024;

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The connection closed without a byte of an answer.
    Unanswered,
    /// An answer began, but broke off in its head or was not HTTP.
    Broken,
}

/// A connection between requests, or in one.
pub(crate) struct Connection {
    stream: TcpStream,
    received: BytesMut,
    next_read: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        // Small requests are to leave at once. A socket that refuses is merely slower.
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, received: BytesMut::new(), next_read: FIRST_READ })
    }

    /// Whether another request may be sent on it. An idle engine has nothing to say: bytes, like the end of
    /// the connection, mean that it cannot be used. Nobody is woken when that changes.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.received.is_empty() && self.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        mut self,
        head: &RequestHead<'_>,
        body: &Bytes,
    ) -> Result<(response::Parts, EngineAnswer), SendError> {
        let mut out = Vec::with_capacity(1024);
        write_head(&mut out, head, body.len());
        let mut sent = 0;
        let answer = poll_fn(|cx| self.poll_exchange(&out, body, &mut sent, head.method, cx)).await?;
        let AnswerHead { parts, framing, keep_alive } = answer;
        // An answer that came before all of the request went leaves the rest of it in nobody's hands.
        let reusable = keep_alive && sent == out.len() + body.len();
        Ok((parts, EngineAnswer { connection: self, framing, reusable }))
    }

    /// Writes while it can and reads while there is something: an engine may refuse a request before it has
    /// taken all of it, and then says so and closes.
    fn poll_exchange(
        &mut self,
        head: &[u8],
        body: &[u8],
        sent: &mut usize,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, SendError>> {
        let mut writable = true;
        while writable && *sent < head.len() + body.len() {
            match self.poll_write(head, body, *sent, cx) {
                Poll::Ready(Ok(count)) if count > 0 => *sent += count,
                Poll::Ready(_) | Poll::Pending => writable = false,
            }
        }
        loop {
            let ended = match ready!(self.poll_read(cx)) {
                Ok(count) => count == 0,
                Err(_) => true,
            };
            match read_head(&mut self.received, method) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) if !ended => {}
                Ok(None) if self.received.is_empty() => return Poll::Ready(Err(SendError::Unanswered)),
                Ok(None) | Err(_) => return Poll::Ready(Err(SendError::Broken)),
            }
        }
    }

    fn poll_write(
        &mut self,
        head: &[u8],
        body: &[u8],
        sent: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        match head.get(sent..) {
            Some(rest) => stream.poll_write_vectored(cx, &[IoSlice::new(rest), IoSlice::new(body)]),
            None => stream.poll_write(cx, &body[sent - head.len()..]),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < FIRST_READ / 2 {
            self.received.reserve(self.next_read);
        }
        let room = self.received.capacity() - self.received.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.received)).poll(cx))?;
        if count == room {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        }
        Poll::Ready(Ok(count))
    }
}

/// The body of an answer together with the connection that it comes from.
pub(crate) struct EngineAnswer {
    connection: Connection,
    framing: Framing,
    reusable: bool,
}

impl EngineAnswer {
    /// Whether nothing of the body is left.
    pub(crate) fn is_over(&self) -> bool {
        self.framing == Framing::Over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Over => SizeHint::with_exact(0),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    /// The next piece of the body.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match self.framing.next(&mut self.connection.received) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if self.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into()))),
            }
            match ready!(self.connection.poll_read(cx)) {
                Ok(0) if self.framing == Framing::UntilClose => self.framing = Framing::Over,
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The connection after the last byte of the answer, if it can carry another request.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        (self.reusable && self.is_over() && self.connection.received.is_empty()).then_some(self.connection)
    }
}
