//! Every request that is over is written down once, with its outcome.

use std::time::Duration;

use gateway::Outcome;
use orch_core::ErrorCode;

use crate::support::{Engine, Front, LIMIT, Then, chat, events_without_end, key, silence, wait_idle, whole};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"hi"}],"model":"chat","stream":true}"#;

/// The records so far, once there are so many.
async fn records(front: &Front, count: usize) -> Vec<gateway::RequestRecord> {
    testkit::wait_for_async("the records", LIMIT, || async { front.records().len() >= count }).await;
    front.records()
}

#[tokio::test]
async fn a_whole_answer_is_written_down_with_what_the_request_asked_for() {
    let engine = Engine::start(|_| whole("{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}"));
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/chat/completions", CHAT).await.status, 200);
    let records = records(&front, 1).await;
    let [record] = &records[..] else { panic!("one request, one record: {records:?}") };
    assert_eq!((record.outcome, record.status, record.code), (Outcome::Done, 200, None));
    assert_eq!(record.endpoint, "/v1/chat/completions");
    assert_eq!((record.model.as_deref(), record.streamed, record.attempts), (Some("chat"), true, 1));
    assert_eq!(record.replica.as_ref(), Some(&key("chat", 0)));
    assert_eq!((record.usage.prompt_tokens, record.usage.completion_tokens), (Some(3), Some(2)));
    assert_eq!(record.caller.id, "anyone");
    assert!(record.queued.is_some_and(|queued| queued <= record.total));
    assert_eq!(record.body, None, "bodies are not kept unless somebody asks for it");
}

#[tokio::test]
async fn a_refusal_a_broken_answer_and_a_client_that_left_are_written_down_once_each() {
    let begun = "event: message_start\ndata: {}\n\n";
    let engine = Engine::start(move |seen| {
        if seen.line.contains("messages") { events_without_end(&[begun], Then::Close) } else { silence() }
    });
    let front = Front::start(chat(&[engine.address])).await;
    assert_eq!(front.post("/v1/chat/completions", "{\"model\":\"nobody\"}").await.status, 404);
    front.post("/v1/messages", CHAT).await;
    let client = front.open("/v1/chat/completions", CHAT).await;
    testkit::wait_for_async("the slot to be taken", LIMIT, || async {
        front.gateway.table().busy_slots(&key("chat", 0)) == 1
    })
    .await;
    drop(client);
    let told: Vec<_> =
        records(&front, 3).await.iter().map(|record| (record.outcome, record.status, record.code)).collect();
    assert_eq!(
        told,
        [
            (Outcome::Refused, 404, Some(ErrorCode::ModelNotFound)),
            (Outcome::Broken, 200, Some(ErrorCode::WorkerReset)),
            (Outcome::Canceled, 499, Some(ErrorCode::Cancelled)),
        ]
    );
    tokio::time::timeout(Duration::from_secs(5), wait_idle(&front, &key("chat", 0))).await.unwrap();
}
