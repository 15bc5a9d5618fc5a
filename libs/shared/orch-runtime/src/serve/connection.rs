//! One connection from accept to close.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::ServeOptions;
use super::activity::{Activity, InFlight, Phase, WatchedBody, WatchedStream};

/// hyper's buffer for one connection: also what it reads of a body and writes of a response at once.
const MIN_BUFFER: usize = 128 * 1024;

pub(super) async fn serve_connection<S, B>(
    stream: TcpStream,
    service: S,
    options: ServeOptions,
    drain: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Small events of a stream are to leave at once. A socket that refuses is merely slower.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let watched = service_fn(|request| {
        let in_flight = InFlight::new(&activity);
        let answer = service.call(request);
        async move { answer.await.map(|response| response.map(|body| WatchedBody::new(body, in_flight))) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_header_size(options.max_header_bytes)
            .max_buf_size(options.max_header_bytes.max(MIN_BUFFER))
            .serve_connection(WatchedStream::new(stream, Arc::clone(&activity)), watched)
    );
    let mut drained = pin!(drain.cancelled());
    let mut draining = false;
    let mut timer = pin!(tokio::time::sleep(options.header_timeout));
    let mut clock = Clock { options, seen: activity.changes(), armed: Some(Ending::Cut) };

    let outcome = poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        match ready!(clock.poll_expired(&activity, timer.as_mut(), cx)) {
            Ending::Cut => Poll::Ready(Ok(())),
            Ending::Graceful => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().poll(cx)
            }
        }
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended early");
    }
}

/// How a connection ends when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Between requests: nothing is lost.
    Graceful,
    /// The client broke the rules; it is dropped with whatever it is owed.
    Cut,
}

/// Moves the connection's one timer as its activity changes.
struct Clock {
    options: ServeOptions,
    seen: u64,
    /// Nothing while only we are at work.
    armed: Option<Ending>,
}

impl Clock {
    fn poll_expired(
        &mut self,
        activity: &Activity,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Ending> {
        let changes = activity.changes();
        if self.seen != changes {
            self.seen = changes;
            let limit = match activity.phase() {
                _ if activity.write_blocked() => Some((self.options.idle_timeout, Ending::Cut)),
                Phase::Head => Some((self.options.header_timeout, Ending::Cut)),
                Phase::Idle => Some((self.options.idle_timeout, Ending::Graceful)),
                Phase::Busy => None,
            };
            self.armed = limit.map(|(limit, ending)| {
                timer.as_mut().reset(Instant::now() + limit);
                ending
            });
        }
        match self.armed {
            None => Poll::Pending,
            Some(ending) => {
                ready!(timer.as_mut().poll(cx));
                // An orderly end that does not come about is cut.
                timer.reset(Instant::now() + self.options.header_timeout);
                self.armed = Some(Ending::Cut);
                Poll::Ready(ending)
            }
        }
    }
}
