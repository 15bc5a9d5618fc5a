//! Engines that answer with an error: what the client is told, and who else is asked.

use gateway::Outcome;
use orch_core::UnixMillis;
use serde_json::{Value, json};

use crate::support::{
    Engine, Front, Reply, Script, answer_with, chat, chunk, chunked_head, key, wait_idle, whole,
};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"chat"}"#;

fn failing(status: &str, kind: &str, message: &str) -> Script {
    let code: u16 = status[..3].parse().unwrap();
    let body = json!({"error": {"code": code, "message": message, "type": kind}});
    answer_with(status, "application/json; charset=utf-8", &body.to_string())
}

/// As llama-server says it of a prompt of 5,000 tokens.
fn too_long(context: u64) -> Script {
    let message = format!("request (5000 tokens) exceeds the available context size ({context} tokens)");
    let body = json!({"error": {"code": 400, "message": message, "type": "exceed_context_size_error",
        "n_prompt_tokens": 5000, "n_ctx": context}});
    answer_with("400 Bad Request", "application/json; charset=utf-8", &body.to_string())
}

/// Exactly one end is written down, and nothing is held any more.
async fn assert_one_end(front: &Front, outcome: Outcome, code: Option<&str>) {
    wait_idle(front, &key("chat", 0)).await;
    let records = front.records();
    let last = records.last().expect("a record");
    assert_eq!((last.outcome, last.code.map(|code| code.label())), (outcome, code));
    let ids: Vec<_> = records.iter().filter(|record| record.id == last.id).collect();
    assert_eq!(ids.len(), 1);
}

fn error(reply: &Reply) -> Value {
    reply.json()["error"].clone()
}

#[tokio::test]
async fn a_prompt_over_the_context_is_refused_with_both_numbers_in_the_callers_words() {
    let engine = Engine::start(|_| too_long(4096));
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (400, Some("false")));
    let told = error(&reply);
    assert_eq!(
        (&told["code"], &told["type"]),
        (&json!("context_length_exceeded"), &json!("invalid_request_error"))
    );
    assert_eq!((&told["n_prompt_tokens"], &told["n_ctx"]), (&json!(5000), &json!(4096)));
    assert_one_end(&front, Outcome::Refused, Some("CONTEXT_EXCEEDED")).await;
    let reply = front.post("/v1/messages", BODY).await;
    assert_eq!((reply.status, &reply.json()["type"]), (400, &json!("error")));
    assert_eq!(error(&reply)["type"], "invalid_request_error");
    assert!(error(&reply)["message"].as_str().unwrap().contains("5000 tokens"));
}

#[tokio::test]
async fn a_prompt_over_the_context_goes_to_a_larger_replica_if_there_is_one() {
    let small = Engine::start(|_| too_long(4096));
    let large = Engine::start(|_| whole("{}"));
    let mut table = chat(&[small.address, small.address, large.address]);
    table[0].replicas[2].slot_context = Some(8192);
    let front = Front::start(table.clone()).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("2")));
    assert_eq!(reply.header("x-llama-orch-context"), Some("8192"));
    assert_eq!(small.seen().len(), 1, "the other small one is not asked");
    assert_one_end(&front, Outcome::Done, None).await;
    table[0].replicas[2].slot_context = Some(5000);
    front.publish(table);
    assert_eq!(front.post(CHAT, BODY).await.status, 400, "nothing could be generated there");
    assert_eq!(large.seen().len(), 1);
}

#[tokio::test]
async fn an_engine_that_refuses_the_gateways_key_is_not_taken_for_the_clients_mistake() {
    let closed = Engine::start(|_| failing("401 Unauthorized", "authentication_error", "Invalid API Key"));
    let open = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[closed.address, open.address])).await;
    assert_eq!(front.post(CHAT, BODY).await.status, 200);
    let front = Front::start(chat(&[closed.address])).await;
    for (path, probe) in [CHAT, "/v1/messages", "/completion", "/tokenize"].into_iter().zip(10..) {
        front.gateway.table().note_good_probe(&key("chat", 0), UnixMillis(probe));
        let reply = front.post(path, BODY).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(
            !reply.text().contains("Invalid API Key") && reply.text().contains("gateway"),
            "{}",
            reply.text()
        );
        assert_one_end(&front, Outcome::Refused, Some("POOL_UNAVAILABLE")).await;
    }
}

#[tokio::test]
async fn an_engine_that_loads_is_passed_over_until_it_is_probed_well() {
    let loading = Engine::start(|_| failing("503 Busy", "unavailable_error", "Loading model"));
    let ready = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[loading.address, ready.address])).await;
    for _ in 0..3 {
        assert_eq!(front.post(CHAT, BODY).await.status, 200);
    }
    assert_eq!(loading.seen().len(), 1);
    front.gateway.table().note_good_probe(&key("chat", 0), UnixMillis(2));
    front.post(CHAT, BODY).await;
    assert_eq!(loading.seen().len(), 2);
    let front = Front::start(chat(&[loading.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, &error(&reply)["code"]), (503, &json!("MODEL_NOT_AVAILABLE")));
    assert!(reply.header("retry-after").is_some());
    assert_one_end(&front, Outcome::Refused, Some("MODEL_NOT_AVAILABLE")).await;
}

#[tokio::test]
async fn an_engine_that_fails_is_replaced_and_alone_it_is_quoted() {
    let failing_one = Engine::start(|_| failing("500 Oops", "server_error", "compute error"));
    let good = Engine::start(|_| whole("{}"));
    let front = Front::start(chat(&[failing_one.address, good.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("2")));
    assert_one_end(&front, Outcome::Done, None).await;
    let front = Front::start(chat(&[failing_one.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, &error(&reply)["message"]), (500, &json!("compute error")));
    assert_one_end(&front, Outcome::Refused, Some("WORKER_RESET")).await;
    assert_eq!(front.gateway.table().signs(&key("chat", 0)).last_status, 500);
}

#[tokio::test]
async fn what_an_engine_was_not_started_for_is_told_once_and_for_all() {
    let engine = Engine::start(|_| failing("501 Not Here", "not_supported_error", "no embeddings"));
    let front = Front::start(chat(&[engine.address, engine.address])).await;
    let reply = front.post("/v1/embeddings", BODY).await;
    assert_eq!((reply.status, reply.header("x-should-retry")), (501, Some("false")));
    assert_eq!(error(&reply)["message"], "no embeddings");
    assert_eq!(engine.seen().len(), 1);
}

#[tokio::test]
async fn whoever_speaks_the_engines_own_language_gets_its_own_words() {
    let engine =
        Engine::start(|_| failing("400 Bad Request", "invalid_request_error", "'prompt' is missing"));
    let front = Front::start(chat(&[engine.address])).await;
    let own =
        json!({"error": {"code": 400, "message": "'prompt' is missing", "type": "invalid_request_error"}});
    for path in ["/completion", "/upstream/chat/v1/chat/completions"] {
        let reply = front.post(path, BODY).await;
        assert_eq!((reply.status, reply.json()), (400, own.clone()), "{path}");
    }
    let told = error(&front.post(CHAT, BODY).await);
    assert_eq!(
        told,
        json!({"message": "'prompt' is missing", "type": "invalid_request_error", "param": null,
        "code": "INVALID_PARAMS"})
    );
}

#[tokio::test]
async fn a_stranger_on_the_engines_port_is_not_taken_for_an_engine() {
    for (status, media_type) in [
        ("200 OK", "text/html"),
        ("404 Not Found", "text/plain"),
        ("302 Found", "text/plain"),
        ("501 No", "text/html"),
    ] {
        let stranger = Engine::start(move |_| answer_with(status, media_type, "<html>hello</html>"));
        let good = Engine::start(|_| whole("{}"));
        let front = Front::start(chat(&[stranger.address, good.address])).await;
        for attempt in ["2", "1"] {
            let reply = front.post(CHAT, BODY).await;
            assert_eq!(
                (reply.status, reply.header("x-llama-orch-attempt")),
                (200, Some(attempt)),
                "{status}"
            );
        }
        let front = Front::start(chat(&[stranger.address])).await;
        let reply = front.post(CHAT, BODY).await;
        assert_eq!((reply.status, &error(&reply)["code"]), (502, &json!("WORKER_RESET")), "{status}");
        assert!(!reply.text().contains("hello"));
        assert_one_end(&front, Outcome::Refused, Some("WORKER_RESET")).await;
    }
}

#[tokio::test]
async fn an_error_without_end_is_not_read_to_its_end() {
    let engine = Engine::start(|_| {
        let mut pieces = vec![chunked_head("application/json")];
        pieces[0] = String::from_utf8(pieces[0].clone()).unwrap().replace("200 OK", "400 Bad").into_bytes();
        pieces.extend((0..200).map(|_| chunk(&[b'x'; 1024])));
        Script { pieces, then: crate::support::Then::Hang }
    });
    let front = Front::start(chat(&[engine.address])).await;
    let reply = front.post(CHAT, BODY).await;
    assert_eq!((reply.status, &error(&reply)["code"]), (400, &json!("INVALID_PARAMS")));
    assert!(reply.body.len() < 4096);
    assert_one_end(&front, Outcome::Refused, Some("INVALID_PARAMS")).await;
}
