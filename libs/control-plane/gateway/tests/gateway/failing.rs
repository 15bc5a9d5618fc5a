//! Everything that goes wrong: who is told what, and that nothing stays behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::{DrainOutcome, Limits};
use orch_core::{ErrorCode, Status, UnixMillis};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Engine, Front, LIMIT, Reply, Script, Then, answer_with, chat, events, events_without_end, exchange,
    instance, key, nobody, read_reply, read_until, replica, silence, wait_idle, whole,
};

const CHAT: &str = r#"{"model":"chat"}"#;
const FIRST: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

fn assert_retriable(reply: &Reply) {
    let wait: u64 = reply.header("retry-after").expect("a Retry-After").parse().unwrap();
    assert!(wait >= 1);
    assert!(reply.header("x-backoff-ms").is_some());
    assert_eq!(reply.header("x-should-retry"), None);
}

fn assert_final(reply: &Reply) {
    assert_eq!((reply.header("retry-after"), reply.header("x-should-retry")), (None, Some("false")));
}

#[tokio::test]
async fn an_unknown_model_is_not_found_in_the_callers_dialect() {
    let front = Front::start(vec![instance("chat", Vec::new())]).await;
    let reply = front.post_with("/v1/chat/completions", "x-request-id: r1\r\n", r#"{"model":"nope"}"#).await;
    assert_eq!((reply.status, reply.header("x-request-id")), (404, Some("r1")));
    assert_final(&reply);
    let error = &reply.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("not_found_error"), &json!("MODEL_NOT_FOUND")));
    assert_eq!(error["param"], "model");
    let reply = front.post_with("/v1/messages", "x-request-id: r2\r\n", r#"{"model":"nope"}"#).await;
    assert_eq!(reply.json()["error"]["type"], "not_found_error");
    assert_eq!((&reply.json()["type"], &reply.json()["request_id"]), (&json!("error"), &json!("r2")));
    let reply = front.post("/tokenize", r#"{"model":"nope"}"#).await;
    assert_eq!(reply.json()["error"]["code"], 404);
    let rejected = front.metric("tasks_rejected_total").await;
    assert_eq!(
        rejected.as_deref(),
        Some("tasks_rejected_total{reason=\"MODEL_NOT_FOUND\",priority=\"interactive\"} 3")
    );
}

#[tokio::test]
async fn a_model_that_does_not_serve_says_what_to_do() {
    let with_status = |status| {
        let mut stopped = instance("chat", Vec::new());
        stopped.status = status;
        vec![stopped]
    };
    let front = Front::start(with_status(Status::Stopped)).await;
    for (status, advice) in [
        (Status::Stopped, "llama-orch up chat"),
        (Status::Starting, "starting"),
        (Status::Crashed, "llama-orch logs chat"),
        (Status::Error, "llama-orch up chat"),
    ] {
        front.publish(with_status(status));
        let reply = front.post("/v1/chat/completions", CHAT).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("MODEL_NOT_AVAILABLE")));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(advice), "{message}");
        assert_retriable(&reply);
    }
}

#[tokio::test]
async fn a_request_that_could_mean_several_models_is_invalid() {
    let front = Front::start(vec![instance("a", Vec::new()), instance("b", Vec::new())]).await;
    for body in ["{}", "", "{\"model\":null}", "{\"model\":\"\"}", "{\"model\":3}", "{\"model\":", "[]"] {
        let reply = front.post("/v1/chat/completions", body).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("INVALID_PARAMS")), "{body}");
        assert_final(&reply);
    }
    assert_eq!(front.get("/props").await.status, 400);
}

#[tokio::test]
async fn a_node_that_does_not_have_the_model_is_never_replaced_silently() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/completions", r#"{"model":"chat@node-1"}"#).await.status, 200);
    let reply = front.post("/v1/completions", r#"{"model":"chat@node-2"}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("NODE_UNAVAILABLE")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_however_it_is_sent() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let front = Front::start_with(chat(&[nobody().await]), limits).await;
    let body = format!("{{\"model\":\"chat\",\"x\":\"{}\"}}", "y".repeat(3000));
    let reply = front.post("/v1/messages", &body).await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (413, &json!("request_too_large")));
    assert_final(&reply);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n";
    let reply = exchange(front.address, head, chunked.as_bytes()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!("TOO_LARGE")));
    let head =
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 3000\r\n";
    assert_eq!(exchange(front.address, head, b"").await.status, 413, "and it is not told to go on first");
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_not_waited_for() {
    let limits = Limits { body_idle: Duration::from_millis(50), ..Limits::default() };
    let front = Front::start_with(chat(&[nobody().await]), limits).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n";
    assert_eq!(exchange(front.address, head, b"{\"mod").await.status, 400);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_frees_the_slot() {
    let engine = Engine::start(|_| silence());
    let front = Front::start(chat(&[engine.address])).await;
    let client = front.open("/v1/chat/completions", CHAT).await;
    let table = front.gateway.table();
    testkit::wait_for_async("the slot to be taken", LIMIT, || async {
        table.busy_slots(&key("chat", 0)) == 1
    })
    .await;
    drop(client);
    let a_second = Duration::from_secs(1);
    testkit::wait_for_async("the engine to be let go", a_second, || async {
        engine.abandoned.load(Ordering::SeqCst) == 1
    })
    .await;
    wait_idle(&front, &key("chat", 0)).await;
    let canceled = front.metric("tasks_canceled_total").await;
    assert_eq!(
        canceled.as_deref(),
        Some("tasks_canceled_total{reason=\"client_gone\",priority=\"interactive\"} 1")
    );
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_frees_the_slot() {
    let engine = Engine::start(|_| events_without_end(&[FIRST], Then::Hang));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open("/v1/chat/completions", CHAT).await;
    read_until(&mut client, FIRST).await;
    drop(client);
    let a_second = Duration::from_secs(1);
    testkit::wait_for_async("the engine to be let go", a_second, || async {
        engine.abandoned.load(Ordering::SeqCst) == 1
    })
    .await;
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_engine_that_dies_in_a_stream_ends_it_with_one_error_event() {
    let cases = [
        ("/v1/chat/completions", "data: {\"error\":{", "\"code\":\"WORKER_RESET\""),
        ("/completion", "data: {\"error\":{", "\"code\":502"),
        ("/v1/messages", "event: error\ndata: {\"type\":\"error\"", "api_error"),
        ("/v1/responses", "event: error\ndata: {\"type\":\"error\"", "WORKER_RESET"),
    ];
    let first = "event: message_start\ndata: {\"delta\":\"a\"}\n\n";
    let engine = Engine::start(move |_| events_without_end(&[first, "data: {\"half"], Then::Close));
    let front = Front::start(chat(&[engine.address])).await;
    for (path, start, code) in cases {
        let mut client = front.open(path, CHAT).await;
        let reply = read_reply(&mut client).await;
        let text = reply.text();
        let last = text.strip_prefix(first).unwrap_or_else(|| panic!("{path}: only whole events: {text}"));
        assert!(last.starts_with(start) && last.contains(code) && last.ends_with("\n\n"), "{path}: {last}");
        assert_eq!(last.matches("\n\n").count(), 1, "{path}: one event: {last}");
        wait_idle(&front, &key("chat", 0)).await;
    }
    let canceled = front.metric("tasks_canceled_total").await;
    assert_eq!(
        canceled.as_deref(),
        Some("tasks_canceled_total{reason=\"WORKER_RESET\",priority=\"interactive\"} 4")
    );
}

#[tokio::test]
async fn a_stream_that_ends_without_its_end_is_not_taken_for_whole() {
    let engine = Engine::start(|_| events(&[FIRST]));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open("/v1/chat/completions", CHAT).await;
    let text = read_reply(&mut client).await.text();
    let last = text.strip_prefix(FIRST).unwrap();
    assert!(last.starts_with("data: {\"error\":{") && last.contains("WORKER_RESET"), "{last}");
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_error_event_of_the_engine_is_the_last_word() {
    let error = "data: {\"error\":{\"code\":500,\"message\":\"x\",\"type\":\"server_error\"}}\n\n";
    let engine = Engine::start(move |_| events(&[FIRST, error]));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.text(), reply.complete), (format!("{FIRST}{error}"), true));
}

#[tokio::test]
async fn a_whole_answer_that_breaks_off_is_never_completed() {
    let engine = Engine::start(|_| {
        let mut script = answer_with("200 OK", "application/json", "{\"choices\":[]}");
        script.pieces[1].truncate(5);
        script.then = Then::Close;
        script
    });
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert!(!reply.complete);
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn a_replica_that_refuses_is_replaced_and_stays_out_until_a_good_probe() {
    let engine = Engine::start(|_| whole("{}"));
    let dead = nobody().await;
    let front = Front::start(chat(&[dead, engine.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("2")));
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("1")), "it is out");
    let mut probed = chat(&[dead, engine.address]);
    front.publish(probed.clone());
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!(reply.header("x-llama-orch-attempt"), Some("1"), "an old probe does not bring it back");
    probed[0].replicas[0].last_good_probe = UnixMillis(2);
    front.publish(probed);
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!(reply.header("x-llama-orch-attempt"), Some("2"), "a new one does");
    wait_idle(&front, &key("chat", 0)).await;
    wait_idle(&front, &key("chat", 1)).await;
}

#[tokio::test]
async fn a_good_probe_brings_a_refusing_replica_back_without_a_new_table() {
    let engine = Engine::start(|_| whole("{}"));
    let dead = nobody().await;
    let front = Front::start(chat(&[dead, engine.address])).await;
    for (good_probe, attempt) in [(0, "2"), (1, "1"), (2, "2")] {
        front.gateway.table().note_good_probe(&key("chat", 0), UnixMillis(good_probe));
        let reply = front.post("/v1/chat/completions", CHAT).await;
        assert_eq!(reply.header("x-llama-orch-attempt"), Some(attempt), "after a probe at {good_probe}");
    }
    wait_idle(&front, &key("chat", 0)).await;
    wait_idle(&front, &key("chat", 1)).await;
}

#[tokio::test]
async fn failures_of_an_engine_are_counted_in_a_row_and_mistakes_of_clients_are_not() {
    let engine = Engine::start(|request| match request.line.split(' ').nth(1) {
        Some("/v1/completions") => answer_with("500 Oops", "application/json", "{}"),
        Some("/v1/messages") => answer_with("400 Bad", "application/json", "{}"),
        Some("/infill") => answer_with("501 Not Here", "application/json", "{}"),
        _ => whole("{}"),
    });
    let front = Front::start(chat(&[engine.address])).await;
    let signs = || front.gateway.table().signs(&key("chat", 0));
    for path in ["/v1/completions", "/v1/messages", "/infill", "/v1/completions"] {
        front.post(path, CHAT).await;
    }
    assert_eq!((signs().failures, signs().last_status, signs().progress), (2, 500, 0));
    front.post("/v1/chat/completions", CHAT).await;
    assert_eq!(signs().failures, 0);
    assert!(signs().progress > 0);
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn when_every_replica_refuses_the_model_is_not_available() {
    let front = Front::start(chat(&[nobody().await, nobody().await])).await;
    for _ in 0..2 {
        let reply = front.post("/v1/chat/completions", CHAT).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("MODEL_NOT_AVAILABLE")));
        assert_retriable(&reply);
    }
    wait_idle(&front, &key("chat", 0)).await;
    wait_idle(&front, &key("chat", 1)).await;
}

#[tokio::test]
async fn an_engine_that_dies_before_its_first_byte_is_replaced() {
    let dying = || Script { pieces: Vec::new(), then: Then::Close };
    let first = Engine::start(move |_| dying());
    let second = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[first.address, second.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("2")));
    assert_eq!(first.seen().len(), 1, "the same replica is not tried twice");
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_engine_that_dies_before_its_first_byte_alone_is_a_worker_reset() {
    let engine = Engine::start(|_| Script { pieces: Vec::new(), then: Then::Close });
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (502, &json!("WORKER_RESET")));
    assert_retriable(&reply);
}

#[tokio::test]
async fn what_an_engine_may_have_begun_is_not_done_twice_unless_it_is_harmless() {
    let dying = |_: &_| Script { pieces: Vec::new(), then: Then::Close };
    let engines = [Engine::start(dying), Engine::start(dying)];
    let front = Front::start(chat(&[engines[0].address, engines[1].address])).await;
    let reply = front.post("/slots/0?action=erase&model=chat", "{}").await;
    assert_eq!(reply.status, 502);
    assert_eq!(engines[0].seen().len() + engines[1].seen().len(), 1);
}

#[tokio::test]
async fn a_connection_to_an_engine_that_has_restarted_is_replaced_unnoticed() {
    let engine = Engine::start(|_| whole("{\"engine\":1}"));
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.text(), "{\"engine\":1}");
    let address = engine.kill().await;
    let _engine = Engine::start_at(address, |_| whole("{\"engine\":2}"));
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.text().as_str(), reply.header("x-llama-orch-attempt")), ("{\"engine\":2}", Some("1")));
}

#[tokio::test]
async fn a_connection_that_the_engine_closes_at_the_same_moment_is_replaced_unnoticed() {
    let engine = Engine::start(|seen| match seen.of_connection {
        0 => whole("{}"),
        _ => Script { pieces: Vec::new(), then: Then::Close },
    });
    let front = Front::start(chat(&[engine.address])).await;
    for _ in 0..4 {
        let reply = front.post("/v1/chat/completions", CHAT).await;
        assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("1")));
    }
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn a_stream_without_tokens_is_cut_but_comments_keep_a_prompt_alive() {
    let limits = Limits { token_idle: Duration::from_millis(300), ..Limits::default() };
    let engine = Engine::start(|_| events_without_end(&[": wait\n\n", FIRST, ": wait\n\n"], Then::Hang));
    let front = Front::start_with(chat(&[engine.address]), limits).await;
    let mut client = front.open("/v1/chat/completions", CHAT).await;
    let text = read_reply(&mut client).await.text();
    assert!(text.starts_with(&format!(": wait\n\n{FIRST}: wait\n\ndata: {{\"error\"")), "{text}");
    assert!(text.contains("DECODE_TIMEOUT"), "{text}");
    testkit::wait_for_async("the engine to be let go", LIMIT, || async {
        engine.abandoned.load(Ordering::SeqCst) == 1
    })
    .await;
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_answer_that_never_begins_is_a_timeout() {
    let limits = Limits { answer: Duration::from_millis(100), ..Limits::default() };
    let engine = Engine::start(|_| silence());
    let front = Front::start_with(chat(&[engine.address]), limits).await;
    let reply = front.post("/v1/chat/completions", CHAT).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("DECODE_TIMEOUT")));
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn an_engine_that_does_not_speak_http_is_a_worker_reset() {
    let engine = Engine::start(|_| Script { pieces: vec![b"220 mail\r\n\r\n".to_vec()], then: Then::Close });
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 502);
}

#[tokio::test]
async fn a_drain_waits_for_what_is_under_way_and_lets_nothing_new_in() {
    let engine = Engine::start(|_| events_without_end(&[FIRST], Then::Hang));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open("/v1/chat/completions", CHAT).await;
    read_until(&mut client, FIRST).await;
    let replica_key = key("chat", 0);
    let table = front.gateway.table();
    let drain = table.drain(&replica_key, LIMIT);
    let meanwhile = async {
        testkit::wait_for_async("the drain to begin", LIMIT, || async {
            front.get("/v1/models").await.json()["data"] == json!([])
        })
        .await;
        assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 503);
        drop(client);
    };
    assert_eq!(tokio::join!(drain, meanwhile).0, DrainOutcome::Idle);
    assert_eq!(engine.seen().len(), 1);
}

#[tokio::test]
async fn a_drain_cuts_what_outlasts_it_and_the_client_is_told() {
    let engine = Engine::start(|seen| {
        if seen.line.contains("/v1/completions") {
            silence()
        } else {
            events_without_end(&[FIRST], Then::Hang)
        }
    });
    let front = Front::start(chat(&[engine.address])).await;
    let mut streaming = front.open("/v1/chat/completions", CHAT).await;
    read_until(&mut streaming, FIRST).await;
    let mut waiting = front.open("/v1/completions", CHAT).await;
    testkit::wait_for_async("both requests", LIMIT, || async { engine.seen().len() == 2 }).await;
    let table = front.gateway.table();
    let outcome = table.drain(&key("chat", 0), Duration::from_millis(50)).await;
    assert_eq!(outcome, DrainOutcome::Cut(2));
    let mut rest = String::new();
    let _ = streaming.read_to_string(&mut rest).await;
    assert!(rest.contains("WORKER_RESET"), "{rest}");
    assert!(read_until(&mut waiting, "WORKER_RESET").await.starts_with("HTTP/1.1 502"));
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn a_closed_replica_serves_again_when_a_table_lists_it_as_ready() {
    let engine = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 200);
    front.gateway.table().close_replica(&key("chat", 0));
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 503);
    front.publish(chat(&[engine.address]));
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 200);
    assert_eq!(engine.connections.load(Ordering::SeqCst), 2, "its old connection was closed");
}

#[tokio::test]
async fn a_new_table_leaves_requests_under_way_alone() {
    let engine = Engine::start(|_| events_without_end(&[FIRST], Then::Hang));
    let front = Front::start(chat(&[engine.address])).await;
    let mut client = front.open("/v1/chat/completions", CHAT).await;
    read_until(&mut client, FIRST).await;
    front.publish(chat(&[engine.address]));
    assert_eq!(front.gateway.table().busy_slots(&key("chat", 0)), 1);
    front.publish(Vec::new());
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 404);
    assert_eq!(engine.abandoned.load(Ordering::SeqCst), 0);
    client.shutdown().await.unwrap();
    drop(client);
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_engine_works_ends_its_work() {
    let first = "data: {\"id\":1}\n\n";
    let cases = [("a stream that has begun", true, 200), ("nothing has begun", false, 504)];
    for (what, begins, status) in cases {
        let engine =
            Engine::start(move |_| if begins { events_without_end(&[first], Then::Hang) } else { silence() });
        let front = Front::start(chat(&[engine.address])).await;
        let reply = front.post_with("/v1/chat/completions", "x-deadline-ms: 150\r\n", CHAT).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        assert!(reply.text().contains("DEADLINE_UNMET"), "{what}: {}", reply.text());
        wait_idle(&front, &key("chat", 0)).await;
        testkit::wait_for_async("the engine to be let go", Duration::from_secs(1), || async {
            engine.abandoned.load(Ordering::SeqCst) == 1
        })
        .await;
        let records = front.records();
        assert_eq!((records.len(), records[0].code), (1, Some(ErrorCode::DeadlineUnmet)), "{what}");
        assert_eq!(
            front.gateway.table().signs(&key("chat", 0)).failures,
            0,
            "{what}: the engine did nothing wrong"
        );
    }
}

#[tokio::test]
async fn what_is_only_there_to_be_read_is_not_changed() {
    let front = Front::start(chat(&[nobody().await])).await;
    for path in ["/v1/models", "/v1/models/chat", "/health", "/metrics"] {
        let reply =
            exchange(front.address, &format!("DELETE {path} HTTP/1.1\r\nhost: localhost\r\n"), b"").await;
        assert_eq!(reply.status, 405, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn models_are_listed_with_the_context_of_a_slot_while_they_serve() {
    let engine = Engine::start(|_| whole("{}"));
    let mut small = replica("chat", 1, engine.address);
    small.slot_context = Some(2048);
    let mut serving = instance("chat", vec![replica("chat", 0, engine.address), small]);
    serving.aliases = vec!["org/name".to_owned()];
    let front = Front::start(vec![serving, instance("stopped", Vec::new())]).await;
    let expected = |id: &str| {
        json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "llama-orch",
            "meta": {"n_ctx": 2048, "slots": 4}})
    };
    let mut alias = expected("org/name");
    alias["root"] = json!("chat");
    let list = front.get("/v1/models").await.json();
    assert_eq!(list, json!({"object": "list", "data": [expected("chat"), alias]}));
    assert_eq!(front.get("/v1/models/org/name").await.json(), alias);
    let reply = front.get("/v1/models/stopped").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("MODEL_NOT_FOUND")));
}

#[tokio::test]
async fn a_gateway_without_a_table_is_up_but_not_ready() {
    let front = Front::start(Vec::new()).await;
    assert_eq!(front.get("/health").await.json(), json!({"status": "ok"}));
    assert_eq!(front.get("/ready").await.json(), json!({"ready": true, "degraded": []}));
    front.gateway.set_degraded(vec!["store".to_owned()]);
    assert_eq!(front.get("/ready").await.json()["degraded"], json!(["store"]));
    let bare = Front::without_table().await;
    assert_eq!(bare.get("/health").await.status, 200);
    assert_eq!(bare.get("/ready").await.status, 503);
    assert_eq!(bare.post("/v1/chat/completions", CHAT).await.status, 503);
    assert_eq!(bare.get("/nowhere").await.status, 404);
}
