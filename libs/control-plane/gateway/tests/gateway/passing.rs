//! Requests and answers that go through: what changes on the way, and what does not.

use std::sync::atomic::Ordering;

use crate::support::{
    Engine, Front, LIMIT, Script, Then, answer_with, chat, chunk, chunked_head, events, exchange, instance,
    key, read_reply, read_until, replica, silence, wait_idle, whole,
};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::AsyncWriteExt;

const CHAT: &str = r#"{"messages":[{"role":"user","content":"hi"}],"model":"chat"}"#;

#[tokio::test]
async fn a_whole_answer_comes_through_with_the_names_of_who_gave_it() {
    let engine = Engine::start(|_| whole(r#"{"choices":[]}"#));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, reply.text().as_str(), reply.complete), (200, r#"{"choices":[]}"#, true));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("content-length"), Some("14"));
    assert_eq!(reply.header("x-llama-orch-instance"), Some("chat"));
    assert_eq!(reply.header("x-llama-orch-node"), Some("node-1"));
    assert_eq!(reply.header("x-llama-orch-attempt"), Some("1"));
    assert_eq!(reply.header("x-llama-orch-context"), Some("4096"));
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
    let seen = engine.seen();
    assert_eq!(seen[0].line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen[0].body, CHAT.as_bytes());
    assert_eq!(seen[0].header("x-request-id"), reply.header("x-request-id"));
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn credentials_stay_here_and_the_engine_gets_its_own_key() {
    let engine = Engine::start(|_| whole("{}"));
    let mut keyed = replica("keyed", 0, engine.address);
    keyed.api_key = Some("engine-secret".to_owned());
    let front = Front::start(vec![
        instance("keyed", vec![keyed]),
        instance("open", vec![replica("open", 0, engine.address)]),
    ])
    .await;
    let headers = "authorization: Bearer ours\r\nx-api-key: ours\r\ncookie: kept\r\nx-request-id: mine\r\n";
    for model in ["keyed", "open"] {
        let reply = front.post_with("/v1/completions", headers, &json!({"model": model}).to_string()).await;
        assert_eq!((reply.status, reply.header("x-request-id")), (200, Some("mine")));
    }
    let seen = engine.seen();
    assert_eq!(seen[0].header("authorization"), Some("Bearer engine-secret"));
    assert_eq!(seen[1].header("authorization"), None);
    for request in &seen {
        assert_eq!((request.header("x-api-key"), request.header("connection")), (None, None));
        assert_eq!((request.header("x-request-id"), request.header("cookie")), (Some("mine"), Some("kept")));
        assert_eq!(request.header("host"), Some(engine.address.to_string().as_str()));
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let engine = Engine::start(|seen| {
        if seen.of_connection % 2 == 0 { whole("{}") } else { events(&["data: 1\n\n", "data: [DONE]\n\n"]) }
    });
    let front = Front::start(chat(&[engine.address])).await;
    for _ in 0..6 {
        assert!(front.post("/v1/chat/completions", CHAT).await.complete);
    }
    assert_eq!(engine.connections.load(Ordering::SeqCst), 1);
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_engine_that_closes_after_its_answer_is_not_asked_on_that_connection_again() {
    let engine = Engine::start(|_| {
        let mut script = answer_with("200 OK", "application/json\r\nconnection: close", "{}");
        script.then = Then::Close;
        script
    });
    let front = Front::start(chat(&[engine.address])).await;
    for _ in 0..3 {
        let reply = front.post("/v1/chat/completions", CHAT).await;
        assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("1")));
    }
    assert_eq!(engine.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_chunked_request_body_arrives_whole() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    let body = [chunk(&CHAT.as_bytes()[..7]), chunk(&CHAT.as_bytes()[7..]), b"0\r\n\r\n".to_vec()].concat();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n";
    assert_eq!(exchange(front.address, head, &body).await.status, 200);
    let seen = engine.seen();
    assert_eq!(seen[0].body, CHAT.as_bytes());
    assert_eq!(seen[0].header("content-length"), Some(CHAT.len().to_string().as_str()));
    assert_eq!(seen[0].header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    let mut stream = tokio::net::TcpStream::connect(front.address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        CHAT.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(CHAT.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status, 200);
    assert_eq!(engine.seen()[0].header("expect"), None);
}

#[tokio::test]
async fn requests_without_a_body_are_routed_by_their_query() {
    let engine = Engine::start(|seen| {
        if seen.line.starts_with("HEAD") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n";
            Script { pieces: vec![head.as_bytes().to_vec()], then: Then::KeepAlive }
        } else {
            whole("{\"total_slots\":2}")
        }
    });
    let other = instance("other", Vec::new());
    let front = Front::start(vec![instance("chat", vec![replica("chat", 0, engine.address)]), other]).await;
    let reply = front.get("/props?a=1&model=ch%61t").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{\"total_slots\":2}"));
    let reply = exchange(front.address, "HEAD /props?model=chat HTTP/1.1\r\nhost: localhost\r\n", b"").await;
    assert_eq!((reply.status, reply.header("content-length"), reply.body.len()), (200, Some("99"), 0));
    assert_eq!(engine.seen()[0].line, "GET /props?a=1&model=ch%61t HTTP/1.1");
    assert_eq!(engine.connections.load(Ordering::SeqCst), 1, "an empty answer gives its connection back");
    assert_eq!(front.gateway.table().busy_slots(&key("chat", 0)), 0);
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn the_only_instance_needs_no_name() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/tokenize", r#"{"content":"x"}"#).await.status, 200);
    assert_eq!(front.get("/slots").await.status, 200);
}

#[tokio::test]
async fn an_upload_is_routed_by_its_form_field() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(vec![
        instance("chat", Vec::new()),
        instance("whisper", vec![replica("whisper", 0, engine.address)]),
    ])
    .await;
    let body = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n";
    let headers = "content-type: multipart/form-data; boundary=b\r\n";
    let reply = front.post_with("/v1/audio/transcriptions", headers, body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(engine.seen()[0].body, body.as_bytes());
}

#[tokio::test]
async fn upstream_reaches_any_path_of_one_engine() {
    let engine = Engine::start(|_| answer_with("418 I'm a teapot", "text/plain", "short and stout"));
    let front =
        Front::start(vec![instance("a", vec![replica("a", 0, engine.address)]), instance("b", Vec::new())])
            .await;
    let reply = front.get("/upstream/a/any/path?x=%20y").await;
    assert_eq!((reply.status, reply.text().as_str()), (418, "short and stout"));
    assert_eq!(front.get("/upstream/a").await.status, 418);
    let lines: Vec<String> = engine.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["GET /any/path?x=%20y HTTP/1.1", "GET / HTTP/1.1"]);
    assert_eq!(front.get("/upstream/b/x").await.status, 503);
    assert_eq!(front.get("/upstream/c/x").await.status, 404);
}

#[tokio::test]
async fn the_least_busy_replica_is_chosen() {
    let first = Engine::start(|_| silence());
    let second = Engine::start(|_| silence());
    let front = Front::start(chat(&[first.address, second.address])).await;
    let mut open = Vec::new();
    for count in 1..=4_usize {
        open.push(front.open("/v1/chat/completions", CHAT).await);
        testkit::wait_for_async("the request to arrive", LIMIT, || async {
            first.seen().len() + second.seen().len() == count
        })
        .await;
    }
    assert_eq!((first.seen().len(), second.seen().len()), (2, 2));
    assert_eq!(front.gateway.table().busy_slots(&key("chat", 0)), 2);
    drop(open);
    wait_idle(&front, &key("chat", 0)).await;
    wait_idle(&front, &key("chat", 1)).await;
}

#[tokio::test]
async fn an_anthropic_stream_without_its_start_gets_one() {
    let stream = [
        "event: content_block_start\ndata: {}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];
    let engine = Engine::start(move |_| events(&stream));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post("/v1/messages", CHAT).await;
    let text = reply.text();
    let rest = text.strip_suffix(&stream.concat()).expect("the engine's events follow unchanged");
    assert!(rest.starts_with("event: message_start\ndata: {\"type\":\"message_start\""), "{rest}");
    assert!(rest.contains("\"model\":\"chat\"") && reply.complete, "{rest}");
}

#[tokio::test]
async fn usage_and_times_of_a_stream_are_counted() {
    let engine = Engine::start(|_| {
        events(&[
            ": wait\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
            "data: {\"choices\":[],\"timings\":{\"cache_n\":2,\"prompt_n\":5,\"predicted_n\":3,\"predicted_ms\":4.0}}\n\n",
            "data: [DONE]\n\n",
        ])
    });
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.metric("tokens_in_total").await, None, "nothing is counted before it happens");
    for _ in 0..2 {
        front.post("/v1/chat/completions", CHAT).await;
    }
    let labels = concat!(
        r#"engine="llama-server",engine_version="b11434","#,
        r#"node_id="node-1",pool_id="chat",replica_id="r0""#
    );
    for (name, count) in [
        ("tasks_started_total", 2),
        ("tokens_in_total", 14),
        ("tokens_out_total", 6),
        ("tokens_cached_total", 4),
        ("latency_first_token_ms_count", 2),
        ("latency_decode_ms_count", 2),
        ("slots_total", 2),
        ("slots_free", 2),
    ] {
        let of_a_class = name.starts_with("tasks") || name.starts_with("latency");
        let priority = if of_a_class { ",priority=\"interactive\"" } else { "" };
        let line = format!("{name}{{{labels}{priority}}} {count}");
        assert_eq!(front.metric(&format!("{name}{{")).await.as_deref(), Some(line.as_str()));
    }
    assert_eq!(
        front.metric("model_state").await.as_deref(),
        Some("model_state{model_id=\"chat\",state=\"running\"} 1")
    );
    assert_eq!(
        front.metric("gateway_overhead_us_count").await.as_deref(),
        Some("gateway_overhead_us_count 2")
    );
    let scrape = front.get("/metrics").await.text();
    assert_eq!(scrape, front.get("/metrics").await.text(), "a scrape changes nothing");
}

/// What an engine streams, and the same cut into chunks and writes.
fn stream_and_cuts() -> impl Strategy<Value = (Vec<u8>, Vec<usize>, Vec<usize>)> {
    let text = prop::collection::vec("[a-zé€😀\\\\\" :]{0,12}", 0..12).prop_map(|pieces| {
        let events: Vec<String> =
            pieces.iter().map(|piece| format!("data: {{\"content\":{piece:?}}}\n\n")).collect();
        let mut stream = events.concat();
        stream.push_str("data: [DONE]\n\n");
        stream.into_bytes()
    });
    (text, prop::collection::vec(1_usize..40, 0..12), prop::collection::vec(1_usize..60, 0..12))
}

fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for &size in sizes {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = tail;
    }
    pieces.push(rest.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_bytes_of_an_answer_never_change((stream, chunks, writes) in stream_and_cuts(), as_events: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let media_type = if as_events { "text/event-stream" } else { "application/octet-stream" };
        let mut wire = chunked_head(media_type);
        wire.extend(cut(&stream, &chunks).iter().flat_map(|piece| chunk(piece)));
        wire.extend_from_slice(b"0\r\n\r\n");
        let pieces = cut(&wire, &writes);
        let reply = runtime.block_on(async move {
            let engine = Engine::start(move |_| Script { pieces: pieces.clone(), then: Then::KeepAlive });
            let front = Front::start(chat(&[engine.address])).await;
            front.post("/v1/chat/completions", CHAT).await
        });
        prop_assert!(reply.complete);
        prop_assert_eq!(reply.body, stream);
    }
}
