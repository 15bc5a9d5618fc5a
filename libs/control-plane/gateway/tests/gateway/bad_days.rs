//! Bad input and bad days: whatever comes from a client or an engine, a request ends in exactly one recorded way and
//! holds nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{Limits, Outcome};
use orch_runtime::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Engine, Front, LIMIT, Script, Then, answer_with, chat, chunk, chunked_head, events, events_without_end,
    exchange, key, nobody, read_until, silence, wait_idle, whole,
};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"chat","stream":true}"#;
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Waits for the only record, and for the place to be free.
async fn only_end(front: &Front, what: &str) -> (Outcome, Option<&'static str>) {
    testkit::wait_for_async("the record", LIMIT, || async { !front.records().is_empty() }).await;
    wait_idle(front, &key("chat", 0)).await;
    let records = front.records();
    assert_eq!(records.len(), 1, "{what}: one request, one record: {records:?}");
    (records[0].outcome, records[0].code.map(|code| code.label()))
}

fn pieces(pieces: &[&[u8]], then: Then) -> Script {
    Script { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), then }
}

type Case = (&'static str, fn() -> Script, Outcome, Option<&'static str>);

#[tokio::test]
async fn every_way_in_which_an_engine_can_fail_has_one_end() {
    let cases: [Case; 13] = [
        ("dies before its answer", || pieces(&[], Then::Close), Outcome::Refused, Some("WORKER_RESET")),
        ("hangs before its answer", silence, Outcome::Refused, Some("DECODE_TIMEOUT")),
        (
            "dies in the head",
            || pieces(&[b"HTTP/1.1 200 OK\r\ncontent-"], Then::Close),
            Outcome::Refused,
            Some("WORKER_RESET"),
        ),
        (
            "dies behind the head",
            || pieces(&[b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n"], Then::Close),
            Outcome::Broken,
            Some("WORKER_RESET"),
        ),
        (
            "dies in a stream",
            || events_without_end(&[EVENT], Then::Close),
            Outcome::Broken,
            Some("WORKER_RESET"),
        ),
        (
            "dies in an event",
            || events_without_end(&[EVENT, "data: {"], Then::Close),
            Outcome::Broken,
            Some("WORKER_RESET"),
        ),
        (
            "hangs in a stream",
            || events_without_end(&[EVENT], Then::Hang),
            Outcome::Broken,
            Some("DECODE_TIMEOUT"),
        ),
        ("closes without the last event", || events(&[EVENT]), Outcome::Broken, Some("WORKER_RESET")),
        (
            "says something that is no chunk",
            || {
                pieces(
                    &[&chunked_head("text/event-stream"), &chunk(EVENT.as_bytes()), b"zz\r\n"],
                    Then::Close,
                )
            },
            Outcome::Broken,
            Some("WORKER_RESET"),
        ),
        (
            "speaks no HTTP",
            || pieces(&[b"SSH-2.0-OpenSSH\r\n\r\n"], Then::Close),
            Outcome::Refused,
            Some("WORKER_RESET"),
        ),
        (
            "fails",
            || answer_with("500 Oops", "application/json", "{\"error\":{\"message\":\"x\"}}"),
            Outcome::Refused,
            Some("WORKER_RESET"),
        ),
        (
            "hangs up on its own error",
            || pieces(&[b"HTTP/1.1 400 Bad\r\ncontent-length: 20\r\n\r\n{\"error\":"], Then::Close),
            Outcome::Refused,
            Some("INVALID_PARAMS"),
        ),
        (
            "sends a broken event and goes on",
            || events(&[EVENT, "data: {\"cho\n\n", DONE]),
            Outcome::Done,
            None,
        ),
    ];
    let limits = Limits {
        answer: Duration::from_millis(200),
        token_idle: Duration::from_millis(200),
        ..Limits::default()
    };
    for (what, script, outcome, code) in cases {
        let engine = Engine::start(move |_| script());
        let front = Front::start_with(chat(&[engine.address]), limits).await;
        let mut client = front.open(CHAT, BODY).await;
        let mut got = Vec::new();
        // A broken answer ends with the connection, in whatever way.
        let reading = tokio::time::timeout(LIMIT, async {
            while client.read_buf(&mut got).await.is_ok_and(|count| count > 0) {
                if !front.records().is_empty() && outcome != Outcome::Broken {
                    break;
                }
            }
        });
        assert!(reading.await.is_ok(), "{what}");
        assert_eq!(only_end(&front, what).await, (outcome, code), "{what}");
        assert!(got.starts_with(b"HTTP/1.1 "), "{what}: {}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test]
async fn an_engine_that_takes_no_connection_has_one_end() {
    let front = Front::start(chat(&[nobody().await])).await;
    assert_eq!(front.post(CHAT, BODY).await.status, 503);
    assert_eq!(only_end(&front, "refuses").await, (Outcome::Refused, Some("MODEL_NOT_AVAILABLE")));
}

#[tokio::test]
async fn every_bad_body_is_refused_once_and_reaches_no_engine() {
    let engine = Engine::start(|_| whole("{}"));
    for body in
        ["", "{", "[]", "nul", "{\"model\":7}", "{\"model\":{\"a\":1}}", "{\"model\":\"chat\"", "\u{0}"]
    {
        let front = Front::start(vec![
            chat(&[engine.address]).remove(0),
            crate::support::instance("other", Vec::new()),
        ])
        .await;
        assert_eq!(front.post(CHAT, body).await.status, 400, "{body:?}");
        assert_eq!(only_end(&front, body).await, (Outcome::Refused, Some("INVALID_PARAMS")), "{body:?}");
    }
    assert!(engine.seen().is_empty());
}

#[tokio::test]
async fn fields_that_nobody_knows_and_deep_nesting_go_through_byte_for_byte() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    let deep = format!("{{\"model\":\"chat\", \"x\" :{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let odd =
        "{\"unknown\":{\"model\":\"other\"},\t\"temperature\":\"hot\",\"model\":\"chat\",\"π\":\"\\ud83d\"}";
    for body in [deep.as_str(), odd] {
        assert_eq!(front.post(CHAT, body).await.status, 200);
        assert_eq!(engine.seen().last().map(|seen| seen.body.clone()), Some(body.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_and_the_client_hears_why() {
    let front = Front::start(chat(&[nobody().await])).await;
    let body = vec![b' '; 100 * 1024 * 1024];
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
    let reply = exchange(front.address, &head, &body).await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (413, Some("false")));
    assert_eq!(only_end(&front, "100 MB").await, (Outcome::Refused, Some("TOO_LARGE")));
}

#[tokio::test]
async fn a_megabyte_of_headers_is_refused_before_it_is_a_request() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n", "x".repeat(1024 * 1024));
    let mut client = TcpStream::connect(front.address).await.unwrap();
    // It may hang up before it has read all of this.
    let _ = client.write_all(head.as_bytes()).await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(LIMIT, client.read_to_end(&mut got)).await.expect("the connection closes");
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&got));
    assert_eq!(front.post(CHAT, BODY).await.status, 200);
    assert_eq!(front.records().len(), 1, "only the good one was a request");
}

#[tokio::test]
async fn a_client_that_sends_its_body_drop_by_drop_is_not_waited_for() {
    let limits = Limits { body_idle: Duration::from_millis(100), ..Limits::default() };
    let front = Front::start_with(chat(&[nobody().await]), limits).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{{\"mod");
    client.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut client, "INVALID_PARAMS").await;
    assert_eq!(only_end(&front, "slow").await, (Outcome::Refused, Some("INVALID_PARAMS")));
}

#[tokio::test]
async fn a_client_that_leaves_in_its_own_body_has_one_end() {
    let front = Front::start(chat(&[nobody().await])).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{{\"mod");
    client.write_all(head.as_bytes()).await.unwrap();
    drop(client);
    let (outcome, _) = only_end(&front, "left").await;
    assert!(matches!(outcome, Outcome::Canceled | Outcome::Refused), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_closes_its_half_has_one_end_and_a_free_slot() {
    let engine = Engine::start(|_| events_without_end(&[EVENT], Then::Hang));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open(CHAT, BODY).await;
    read_until(&mut client, EVENT).await;
    client.shutdown().await.unwrap();
    assert_eq!(only_end(&front, "half-closed").await.0, Outcome::Canceled);
    testkit::wait_for_async("the engine to be let go", LIMIT, || async {
        engine.abandoned.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order_and_each_has_its_end() {
    let engine = Engine::start(|seen| whole(&String::from_utf8(seen.body.clone()).unwrap()));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = TcpStream::connect(front.address).await.unwrap();
    let request = |number: u8| {
        let body = format!("{{\"model\":\"chat\",\"n\":{number}}}");
        format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let all: String = (1..=3).map(request).collect();
    client.write_all(all.as_bytes()).await.unwrap();
    let text = read_until(&mut client, "\"n\":3}").await;
    let places: Vec<_> = (1..=3).map(|number| text.find(&format!("\"n\":{number}}}"))).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    testkit::wait_for_async("three records", LIMIT, || async { front.records().len() == 3 }).await;
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn characters_that_are_split_over_chunks_arrive_whole() {
    let text = format!("data: {{\"c\":\"{}\"}}\n\n{DONE}", "ü€🦙".repeat(50));
    let script_text = text.clone();
    let engine = Engine::start(move |_| {
        let mut pieces = vec![chunked_head("text/event-stream")];
        pieces.extend(script_text.as_bytes().chunks(1).map(chunk));
        pieces.push(b"0\r\n\r\n".to_vec());
        Script { pieces, then: Then::KeepAlive }
    });
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.text(), reply.complete), (text, true));
    assert_eq!(only_end(&front, "split").await, (Outcome::Done, None));
}

#[tokio::test]
async fn a_malformed_event_is_passed_on_and_hurts_nobody() {
    let broken = "event: x\ndata: {\"choices\":[{\"delta\ndata\nid\n\n";
    let engine = Engine::start(move |_| events(&[EVENT, broken, EVENT, DONE]));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.text(), reply.complete), (format!("{EVENT}{broken}{EVENT}{DONE}"), true));
}

/// An engine that streams for ever and counts what it could get rid of.
struct Fountain {
    address: std::net::SocketAddr,
    written: Arc<AtomicUsize>,
    /// Nobody took anything for a while.
    blocked: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    tasks: Tasks,
}

impl Fountain {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (written, blocked, closed): (Arc<AtomicUsize>, Arc<AtomicBool>, Arc<AtomicBool>) =
            Default::default();
        let tasks = Tasks::new();
        let (count, stuck, gone) = (Arc::clone(&written), Arc::clone(&blocked), Arc::clone(&closed));
        tasks.spawn("fountain", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            stream.write_all(&chunked_head("text/event-stream")).await.unwrap();
            let event = format!("data: {}\n\n", "x".repeat(60_000));
            loop {
                let piece = chunk(event.as_bytes());
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    match tokio::time::timeout(Duration::from_millis(300), stream.write(rest)).await {
                        Ok(Ok(taken)) => {
                            count.fetch_add(taken, Ordering::SeqCst);
                            rest = &rest[taken..];
                        }
                        Ok(Err(_)) => return gone.store(true, Ordering::SeqCst),
                        Err(_) => stuck.store(true, Ordering::SeqCst),
                    }
                }
            }
        });
        Self { address, written, blocked, closed, tasks }
    }
}

impl Drop for Fountain {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_engine_back_and_no_memory() {
    let fountain = Fountain::start().await;
    let front = Front::start(chat(&[fountain.address])).await;
    let mut client = front.open(CHAT, BODY).await;
    read_until(&mut client, "data: ").await;
    testkit::wait_for_async("the engine to be held back", LIMIT, || async {
        fountain.blocked.load(Ordering::SeqCst)
    })
    .await;
    // What the sockets' own buffers take on the way, and a little of ours.
    let written = fountain.written.load(Ordering::SeqCst);
    assert!(written < 32 * 1024 * 1024, "{written} bytes went somewhere");
    drop(client);
    testkit::wait_for_async("the engine to be let go", LIMIT, || async {
        fountain.closed.load(Ordering::SeqCst)
    })
    .await;
    assert_eq!(only_end(&front, "slow reader").await, (Outcome::Canceled, Some("CANCELLED")));
}

#[tokio::test]
async fn a_replica_taken_away_in_the_middle_has_one_end() {
    let engine = Engine::start(|_| events_without_end(&[EVENT], Then::Hang));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open(CHAT, BODY).await;
    read_until(&mut client, EVENT).await;
    front.gateway.table().close_replica(&key("chat", 0));
    let rest = read_reply_rest(&mut client).await;
    assert_eq!(rest.matches("WORKER_RESET").count(), 1, "{rest}");
    assert_eq!(only_end(&front, "closed").await, (Outcome::Broken, Some("WORKER_RESET")));
}

async fn read_reply_rest(client: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // The end is the closing of the connection, in whatever way.
    let _ = tokio::time::timeout(LIMIT, client.read_to_end(&mut rest)).await.expect("it closes");
    String::from_utf8(rest).unwrap()
}
