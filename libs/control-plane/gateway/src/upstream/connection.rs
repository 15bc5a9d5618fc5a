//! One HTTP/1.1 connection to an engine, polled in place.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The engine closed the connection without a byte of an answer.
    Reset,
    /// The engine answered with something that is not HTTP.
    Malformed,
}

/// A connection between requests, or in one.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Gone once the connection has ended. Boxed, because a connection changes hands with every request.
    driver: Option<Box<Driver>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        // Small request bodies are to leave at once. A socket that refuses is merely slower.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(Box::new(driver)) })
    }

    /// Moves what can be moved. Afterwards the connection is known to be alive or ended as far as the
    /// operating system has told us.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether another request may be sent on it. Nobody is woken when that changes: an idle connection is
    /// looked at when it is needed.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx);
        self.driver.is_some() && matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        // Not an async function: its future would hold the request a second time.
        let mut answer = Box::pin(self.sender.try_send_request(request));
        poll_fn(move |cx| {
            self.drive(cx);
            answer.as_mut().poll(cx).map_err(|error| {
                let error = error.into_error();
                tracing::debug!(%error, "no answer on this connection");
                if error.is_parse() { SendError::Malformed } else { SendError::Reset }
            })
        })
    }
}

/// The body of an answer together with the connection that it comes from.
pub(crate) struct Answer {
    body: Incoming,
    connection: Connection,
}

impl Answer {
    pub(crate) fn new(body: Incoming, connection: Connection) -> Self {
        Self { body, connection }
    }

    pub(crate) fn body(&self) -> &Incoming {
        &self.body
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.connection.drive(cx);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    /// The connection after the last byte of the answer, if it can carry another request.
    pub(crate) fn into_connection(mut self) -> Option<Connection> {
        self.connection.is_usable().then_some(self.connection)
    }
}
