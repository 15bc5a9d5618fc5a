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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::ServeOptions;
use super::activity::{Activity, InFlight, Phase, WatchedBody, WatchedStream};

/// hyper's buffer for one connection: also what it reads of a body and writes of a response at once.
const MIN_BUFFER: usize = 128 * 1024;

pub(super) async fn serve_connection<I, S, B>(
    stream: I,
    service: S,
    options: ServeOptions,
    drain: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
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
    let mut clock = Clock::new(options, &activity);

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
    /// For a timer that is set to the header timeout.
    fn new(options: ServeOptions, activity: &Activity) -> Self {
        Self { options, seen: activity.changes(), armed: Some(Ending::Cut) }
    }

    /// Ready when the client's time is up.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    /// A connection's clock without the connection.
    struct Bench {
        activity: Arc<Activity>,
        clock: Clock,
        timer: Pin<Box<Sleep>>,
    }

    impl Bench {
        fn new() -> Self {
            let options =
                ServeOptions { header_timeout: HEADER, idle_timeout: IDLE, ..ServeOptions::default() };
            let activity = Arc::new(Activity::default());
            let clock = Clock::new(options, &activity);
            Self { activity, clock, timer: Box::pin(tokio::time::sleep(HEADER)) }
        }

        /// What the connection does on every wake-up.
        fn look(&mut self) -> Poll<Ending> {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            self.clock.poll_expired(&self.activity, self.timer.as_mut(), &mut cx)
        }

        async fn after(&mut self, time: Duration) -> Poll<Ending> {
            tokio::time::advance(time).await;
            self.look()
        }

        /// Nothing until `limit` has passed, then `ending`.
        async fn expect(&mut self, limit: Duration, ending: Ending) {
            assert_eq!(self.look(), Poll::Pending);
            let brief = Duration::from_millis(1);
            assert_eq!(self.after(limit.saturating_sub(brief)).await, Poll::Pending);
            assert_eq!(self.after(brief * 2).await, Poll::Ready(ending));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_nothing_is_cut() {
        Bench::new().expect(HEADER, Ending::Cut).await;
    }

    #[tokio::test(start_paused = true)]
    async fn more_bytes_of_a_head_do_not_win_more_time() {
        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.activity.bytes_arrived();
            assert_eq!(bench.after(Duration::from_secs(1)).await, Poll::Pending);
        }
        bench.activity.bytes_arrived();
        assert_eq!(bench.after(Duration::from_millis(1001)).await, Poll::Ready(Ending::Cut));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_any_time_and_then_the_wait_begins_anew() {
        let mut bench = Bench::new();
        let in_flight = InFlight::new(&bench.activity);
        assert_eq!(bench.look(), Poll::Pending);
        assert_eq!(bench.after(IDLE * 100).await, Poll::Pending);
        drop(in_flight);
        bench.expect(IDLE, Ending::Graceful).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_head_has_a_deadline_of_its_own() {
        let mut bench = Bench::new();
        drop(InFlight::new(&bench.activity));
        assert_eq!(bench.look(), Poll::Pending);
        assert_eq!(bench.after(HEADER * 3).await, Poll::Pending);
        bench.activity.bytes_arrived();
        bench.expect(HEADER, Ending::Cut).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_and_each_byte_it_takes_wins_time() {
        let mut bench = Bench::new();
        let _in_flight = InFlight::new(&bench.activity);
        for _ in 0..3 {
            bench.activity.note_write(&Poll::<()>::Pending);
            assert_eq!(bench.look(), Poll::Pending);
            assert_eq!(bench.after(IDLE / 2).await, Poll::Pending);
            bench.activity.note_write(&Poll::Ready(()));
        }
        bench.activity.note_write(&Poll::<()>::Pending);
        bench.expect(IDLE, Ending::Cut).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_orderly_end_that_does_not_come_about_is_cut() {
        let mut bench = Bench::new();
        drop(InFlight::new(&bench.activity));
        bench.expect(IDLE, Ending::Graceful).await;
        bench.expect(HEADER, Ending::Cut).await;
    }
}
