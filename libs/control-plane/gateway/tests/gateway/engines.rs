//! The gateway in front of whole programs: the stand-in with its fault knobs, and the real llama-server.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{RunningEngine, TempHome};
use tokio::io::AsyncReadExt;

use crate::support::{Front, LIMIT, chat, exchange, key, read_until, wait_idle};

fn chat_request(stream: bool, tokens: u32) -> String {
    let messages = json!([{"role": "user", "content": "hi"}]);
    json!({"model": "chat", "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": stream})
        .to_string()
}

async fn front_of(engine: &RunningEngine) -> Front {
    Front::start(chat(&[engine.address().parse().unwrap()])).await
}

#[tokio::test]
async fn an_engine_killed_in_a_stream_leaves_one_error_event_and_a_free_slot() {
    let home = TempHome::new();
    let mut engine = RunningEngine::fake(home.path(), &[("FAKE_TOKEN_MS", "20")]);
    let front = front_of(&engine).await;
    let mut client = front.open("/v1/chat/completions", &chat_request(true, 100_000)).await;
    read_until(&mut client, "\"content\"").await;
    engine.kill();
    let mut rest = Vec::new();
    // The end is the closing of the connection, in whatever way.
    let _ = client.read_to_end(&mut rest).await;
    let rest = String::from_utf8(rest).unwrap();
    assert_eq!(rest.matches("\"code\":\"WORKER_RESET\"").count(), 1, "{rest}");
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_engines_work_within_a_second() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.path(), &[("FAKE_TOKEN_MS", "20")]);
    let front = front_of(&engine).await;
    let mut client = front.open("/v1/chat/completions", &chat_request(true, 100_000)).await;
    read_until(&mut client, "\"content\"").await;
    drop(client);
    let a_second = Duration::from_secs(1);
    testkit::wait_for_async("the engine to stop", a_second, || async { engine.stats()["cancelled"] == 1 })
        .await;
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn a_message_without_its_start_is_mended_and_a_whole_one_is_not_touched() {
    let home = TempHome::new();
    let engine = RunningEngine::fake(home.path(), &[("FAKE_SPLIT_BYTES", "7")]);
    let front = front_of(&engine).await;
    let body = chat_request(true, 4);
    let whole = front.post("/v1/messages", &body).await.text();
    assert!(whole.starts_with("event: message_start\n"), "{whole}");
    assert_eq!(whole.matches("event: message_start").count(), 1);
    engine.set_fault("FAKE_NO_MESSAGE_START", "1");
    let mended = front.post("/v1/messages", &body).await.text();
    assert_eq!(mended.matches("event: message_start").count(), 1);
    let behind = |text: &str| text.split_once("\n\n").map(|(_, rest)| rest.matches("event: ").count());
    assert_eq!(behind(&mended), behind(&whole));
}

#[tokio::test]
async fn the_real_engines_streams_come_through_whole_and_are_counted() {
    let home = TempHome::new();
    let engine = RunningEngine::real(home.path(), &["--parallel", "2"]);
    let front = front_of(&engine).await;
    for path in ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/completion"] {
        let mut body: Value = serde_json::from_str(&chat_request(true, 5)).unwrap();
        body["prompt"] = json!("hi");
        body["input"] = json!("hi");
        let reply = front.post(path, &body.to_string()).await;
        assert_eq!((reply.status, reply.complete), (200, true), "{path}: {}", reply.text());
        assert!(!reply.text().contains("WORKER_RESET"), "{path}: {}", reply.text());
    }
    let counted = front.metric("tokens_out_total{").await.unwrap();
    let count: u64 = counted.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!((4..=20).contains(&count), "four answers of up to five tokens: {counted}");
    wait_idle(&front, &key("chat", 0)).await;
}

#[tokio::test]
async fn the_real_engines_whole_answers_are_the_same_bytes() {
    let home = TempHome::new();
    let engine = RunningEngine::real(home.path(), &[]);
    let front = front_of(&engine).await;
    let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 15\r\n";
    let direct = exchange(engine.address().parse().unwrap(), head, br#"{"content":"a"}"#).await;
    let through = exchange(front.address, head, br#"{"content":"a"}"#).await;
    assert_eq!((through.status, through.body), (direct.status, direct.body));
}

#[tokio::test]
async fn the_real_engine_stops_generating_for_a_client_that_left() {
    let home = TempHome::new();
    let engine = RunningEngine::real(home.path(), &[]);
    let front = front_of(&engine).await;
    let mut client = front.open("/v1/chat/completions", &chat_request(true, 2000)).await;
    read_until(&mut client, "\"content\"").await;
    drop(client);
    testkit::wait_for_async("the engine's slots to be idle", LIMIT, || async {
        let slots = front.get("/slots?model=chat").await.json();
        slots.as_array().unwrap().iter().all(|slot| slot["is_processing"] == false)
    })
    .await;
}
