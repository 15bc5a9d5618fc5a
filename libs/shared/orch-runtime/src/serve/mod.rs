//! The HTTP/1 server loop: accept, serve, drain.
//!
//! Timeouts and drain live here and not in hyper's own header timer, because that one also runs while a
//! kept-alive connection waits for its next request, and allocates a timer for each request. Here a connection
//! has one timer, moved only when it changes between waiting, sending a head and being served.

mod activity;
mod connection;
mod encrypted;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::{Tasks, TlsIdentity};
use connection::serve_connection;
use encrypted::{Secured, secure};

/// How long accepting rests after a failure of the machine's (no more file handles, say).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Bounds on what a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// From the first byte of a request's head (or from the connection) to its last.
    pub header_timeout: Duration,
    /// A larger head is answered 431.
    pub max_header_bytes: usize,
    /// How long a connection may wait for its next request, and for the client to take response bytes. Time
    /// spent on an answer does not count.
    pub idle_timeout: Duration,
    /// More connections wait to be accepted.
    pub max_connections: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 64 * 1024,
            idle_timeout: Duration::from_secs(75),
            max_connections: 8192,
        }
    }
}

/// Serves until the group's token is cancelled; then no connection is accepted, idle ones end at once and the
/// others after the response they are in. [`Tasks::shutdown`] sets the limit and cuts what is left.
///
/// A response's body is dropped when its last byte is handed over or the client is gone, so guards inside it
/// are released on every path.
pub async fn serve<S, B>(listener: TcpListener, service: S, options: ServeOptions, tasks: Tasks)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_encrypted(listener, None, service, options, tasks).await;
}

/// The same, with TLS where there is an identity. Programs of this machine may speak plain HTTP all the same: what
/// they say leaves it nowhere.
pub async fn serve_encrypted<S, B>(
    listener: TcpListener,
    identity: Option<TlsIdentity>,
    service: S,
    options: ServeOptions,
    tasks: Tasks,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let drain = tasks.token();
    let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                rest_after(&error).await;
                continue;
            }
        };
        // Each connection watches a token of its own: sharing one would share its lock between all requests.
        let (service, drain, identity) = (service.clone(), drain.child_token(), identity.clone());
        tasks.spawn("http connection", async move {
            let _place = place;
            // Small events of a stream are to leave at once. A socket that refuses is merely slower.
            let _ = stream.set_nodelay(true);
            let Some(identity) = identity else {
                return serve_connection(stream, service, options, drain).await;
            };
            match secure(stream, &identity, options.header_timeout, &drain).await {
                Some(Secured::Encrypted(stream)) => serve_connection(*stream, service, options, drain).await,
                Some(Secured::Near(stream)) => serve_connection(stream, service, options, drain).await,
                None => {}
            }
        });
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// A client that left before it was accepted concerns nobody; anything else would repeat at once.
async fn rest_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_REST).await;
}
