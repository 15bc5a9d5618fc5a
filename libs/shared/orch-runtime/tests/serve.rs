//! The server loop over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use orch_runtime::{ServeOptions, Tasks, bind, serve};
use testkit::wait_for_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A server whose paths behave as the tests need it.
struct Server {
    address: SocketAddr,
    tasks: Tasks,
    state: Arc<ServerState>,
}

#[derive(Default)]
struct ServerState {
    /// Lets `/slow` answer.
    release: Notify,
    /// Requests that reached the service.
    seen: AtomicUsize,
    /// Bodies of `/stream` and `/flood` alive now.
    open_bodies: AtomicUsize,
}

struct OpenBody(Arc<ServerState>);

impl OpenBody {
    fn new(state: &Arc<ServerState>) -> Self {
        state.open_bodies.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.open_bodies.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    fn start(options: ServeOptions) -> Self {
        let tasks = Tasks::new();
        let state = Arc::new(ServerState::default());
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
        tasks.spawn("http", serve(listener, service, options, tasks.clone()));
        Self { address, tasks, state }
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    async fn until(&self, what: &str, condition: impl Fn(&ServerState) -> bool) {
        wait_for_async(what, PATIENCE, async || condition(&self.state)).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<ServerState>,
) -> Result<Response<TestBody>, Infallible> {
    state.seen.fetch_add(1, Ordering::SeqCst);
    let body = match request.uri().path() {
        "/slow" => {
            state.release.notified().await;
            Full::from("slow").boxed_unsync()
        }
        "/stream" => stream(&state, 3, Duration::from_millis(20)),
        "/forever" => stream(&state, usize::MAX, Duration::from_millis(20)),
        "/flood" => stream(&state, usize::MAX, Duration::ZERO),
        _ => Full::from("hello").boxed_unsync(),
    };
    Ok(Response::new(body))
}

/// `count` chunks, each after a pause.
fn stream(state: &Arc<ServerState>, count: usize, pause: Duration) -> TestBody {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let open = OpenBody::new(state);
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    #[expect(clippy::disallowed_methods, reason = "a test's helper ends with the test")]
    tokio::spawn(async move {
        for _ in 0..count {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if sender.send(chunk.clone()).await.is_err() {
                return;
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |cx| {
        let _alive = &open;
        receiver.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    }

    /// Reads until `end` has come.
    async fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&text).contains(end) {
                assert_ne!(self.stream.read_buf(&mut text).await.unwrap(), 0, "closed too early");
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("{end:?} never came"));
        String::from_utf8(text).unwrap()
    }

    /// Reads until the server closes. A reset counts as closed.
    async fn read_to_end(&mut self) -> String {
        let mut text = Vec::new();
        let read = async { while let Ok(1..) = self.stream.read_buf(&mut text).await {} };
        timeout(PATIENCE, read).await.expect("the server never closed the connection");
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = Server::start(ServeOptions::default());
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.get("/").await;
        let response = client.read_until("hello").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("content-length: 5\r\n"), "a known length stays known: {response}");
    }
    assert!(server.tasks.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_is_cut() {
    let limit = Duration::from_millis(300);
    let server = Server::start(ServeOptions { header_timeout: limit, ..ServeOptions::default() });
    let mut client = server.connect().await;
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: localhost\r\n").await;
    let mut drip = Client { stream: TcpStream::connect(server.address).await.unwrap() };
    let dripping = async {
        // Each byte comes well within the limit; the head as a whole does not.
        for byte in "GET / HTTP/1.1\r\nx-endless: ".chars().chain(std::iter::repeat('a')) {
            if drip.stream.write_all(&[byte as u8]).await.is_err() {
                return;
            }
            tokio::time::sleep(limit / 20).await;
        }
    };
    assert_eq!(client.read_to_end().await, "");
    assert!(began.elapsed() >= limit);
    timeout(PATIENCE, dripping).await.expect("a dripping client is cut too");
    assert_eq!(server.state.seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_kept_alive_connection_may_wait_longer_than_the_header_timeout() {
    let options = ServeOptions {
        header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(800),
        ..ServeOptions::default()
    };
    let server = Server::start(options);
    let mut client = server.connect().await;
    client.get("/").await;
    client.read_until("hello").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.get("/").await;
    client.read_until("hello").await;
    let waited = Instant::now();
    assert_eq!(client.read_to_end().await, "", "an idle connection is closed in the end");
    assert!(waited.elapsed() >= Duration::from_millis(700), "{:?}", waited.elapsed());
}

#[tokio::test]
async fn time_spent_on_an_answer_does_not_count_against_the_client() {
    let brief = Duration::from_millis(50);
    let server =
        Server::start(ServeOptions { header_timeout: brief, idle_timeout: brief, ..ServeOptions::default() });
    let mut client = server.connect().await;
    client.get("/slow").await;
    tokio::time::sleep(brief * 6).await;
    server.state.release.notify_one();
    assert!(client.read_until("slow").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut_and_the_body_dropped() {
    let options = ServeOptions { idle_timeout: Duration::from_millis(200), ..ServeOptions::default() };
    let server = Server::start(options);
    let mut client = server.connect().await;
    client.get("/flood").await;
    server.until("the stream opens", |state| state.open_bodies.load(Ordering::SeqCst) == 1).await;
    server.until("the stream is dropped", |state| state.open_bodies.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_stream() {
    let server = Server::start(ServeOptions::default());
    let mut client = server.connect().await;
    client.get("/forever").await;
    client.read_until("xxxx").await;
    drop(client);
    server.until("the stream is dropped", |state| state.open_bodies.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_answered_431() {
    let options = ServeOptions { max_header_bytes: 8 * 1024, ..ServeOptions::default() };
    let server = Server::start(options);
    for size in [9 * 1024, 300 * 1024] {
        let mut client = server.connect().await;
        let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-big: {}\r\n\r\n", "a".repeat(size));
        // The server may close before it has read all of it.
        let _ = client.stream.write_all(head.as_bytes()).await;
        let response = client.read_to_end().await;
        assert!(
            response.starts_with("HTTP/1.1 431") || (size > 128 * 1024 && response.is_empty()),
            "{response}"
        );
    }
    let mut many = server.connect().await;
    let _ =
        many.stream.write_all(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)).as_bytes()).await;
    assert!(many.read_to_end().await.starts_with("HTTP/1.1 431"));
    assert_eq!(server.state.seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_no_http_is_answered_400() {
    let server = Server::start(ServeOptions::default());
    let mut client = server.connect().await;
    client.send("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let server = Server::start(ServeOptions::default());
    let mut idle = server.connect().await;
    idle.get("/").await;
    idle.read_until("hello").await;
    let mut streaming = server.connect().await;
    streaming.get("/stream").await;
    let mut slow = server.connect().await;
    slow.get("/slow").await;
    server.until("all requests arrive", |state| state.seen.load(Ordering::SeqCst) == 3).await;

    let drain = server.tasks.shutdown(PATIENCE);
    let clients = async {
        assert_eq!(idle.read_to_end().await, "", "an idle connection ends at once");
        assert!(streaming.read_to_end().await.ends_with("0\r\n\r\n"), "a stream comes to its end");
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody is let in any more");
        server.state.release.notify_one();
        let last = slow.read_to_end().await;
        assert!(last.contains("connection: close") && last.ends_with("slow"), "{last}");
    };
    let (all_ended, ()) = tokio::join!(drain, clients);
    assert!(all_ended);
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut() {
    let server = Server::start(ServeOptions::default());
    let mut client = server.connect().await;
    client.get("/forever").await;
    client.read_until("xxxx").await;
    assert!(!server.tasks.shutdown(Duration::from_millis(200)).await);
    assert_eq!(server.state.open_bodies.load(Ordering::SeqCst), 0, "guards inside the body are released");
    let rest = client.read_to_end().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "a cut stream does not pretend to be whole");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(ServeOptions::default());
    let mut client = server.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let both = client.read_to_end().await;
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2);
    assert!(both.find("hello").unwrap() < both.find("xxxx").unwrap());
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let server = Server::start(ServeOptions { max_connections: 1, ..ServeOptions::default() });
    let mut first = server.connect().await;
    first.get("/").await;
    first.read_until("hello").await;
    let mut second = server.connect().await;
    second.get("/").await;
    assert!(timeout(Duration::from_millis(200), second.read_until("hello")).await.is_err());
    drop(first);
    second.read_until("hello").await;
}
