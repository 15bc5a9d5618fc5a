//! Which replica gets a request, as clients see it.

use gateway::{RoutedNode, RoutingTable, Strategy};
use serde_json::{Value, json};

use crate::support::{Engine, Front, Reply, chat, instance, key, nobody, replica, wait_idle, whole};

const CHAT: &str = "/v1/chat/completions";

/// An answer that says how much of the prompt came from the cache.
fn answer(cached: u64) -> String {
    json!({"choices": [], "timings": {"cache_n": cached, "prompt_n": 500 - cached, "predicted_n": 1}})
        .to_string()
}

/// The first so many turns of a conversation.
fn conversation(topic: &str, turns: usize) -> String {
    let messages: Vec<Value> = (0..turns)
        .map(|turn| json!({"role": "user", "content": format!("{topic} {turn} ").repeat(30)}))
        .collect();
    json!({"model": "chat", "messages": messages}).to_string()
}

async fn two_replicas(cached: u64) -> (Engine, Engine, Front) {
    let engine = || Engine::start(move |_| whole(&answer(cached)));
    let (first, second) = (engine(), engine());
    let front = Front::start(chat(&[first.address, second.address])).await;
    (first, second, front)
}

fn reasons(front: &Front) -> Vec<String> {
    front.gateway.decisions().into_iter().map(|decision| decision.reason).collect()
}

async fn settled(front: &Front) {
    wait_idle(front, &key("chat", 0)).await;
    wait_idle(front, &key("chat", 1)).await;
}

fn error_code(reply: &Reply) -> (u16, Value) {
    (reply.status, reply.json()["error"]["code"].clone())
}

#[tokio::test]
async fn the_next_turn_goes_to_the_replica_that_knows_the_conversation() {
    let (first, second, front) = two_replicas(400).await;
    front.post_with(CHAT, "x-placement-prefer: nothing\r\n", &conversation("ships", 2)).await;
    settled(&front).await;
    assert_eq!((first.seen().len(), second.seen().len()), (1, 0));
    // Another conversation is known to nobody; the first replica is as free as the second again.
    let held = first.kill().await;
    let mut table = chat(&[held, second.address]);
    front.publish(table.clone());
    front.post(CHAT, &conversation("bread", 2)).await;
    settled(&front).await;
    assert_eq!(second.seen().len(), 1);
    let _first = Engine::start_at(held, move |_| whole(&answer(400)));
    table[0].replicas[0].last_good_probe = orch_core::UnixMillis(9);
    front.publish(table);
    front.post(CHAT, &conversation("bread", 4)).await;
    settled(&front).await;
    assert_eq!(second.seen().len(), 2, "it knows about bread");
    let decision = &front.gateway.decisions()[0];
    assert_eq!((decision.outcome, decision.reason.as_str()), ("placed", "prefix"));
    assert_eq!(decision.chosen.as_deref(), Some("node-1/chat/r1"));
    assert!(decision.candidates[1].shared_prefix > 256);
    assert_eq!(decision.candidates[0].shared_prefix, 0);
}

#[tokio::test]
async fn a_session_stays_where_it_was() {
    let (first, second, front) = two_replicas(0).await;
    let tiny = r#"{"model":"chat","messages":[]}"#;
    let there = "x-session-id: s1\r\nx-placement-avoid: nowhere\r\n";
    // The first request is kept away from the first replica by its being out.
    front.gateway.table().close_replica(&key("chat", 0));
    front.post_with(CHAT, there, tiny).await;
    front.publish(chat(&[first.address, second.address]));
    for _ in 0..3 {
        settled(&front).await;
        front.post_with(CHAT, there, tiny).await;
    }
    settled(&front).await;
    front.post(CHAT, tiny).await;
    assert_eq!((first.seen().len(), second.seen().len()), (1, 4));
    assert_eq!(reasons(&front), ["order", "session", "session", "session", "only"]);
}

#[tokio::test]
async fn an_engine_that_keeps_no_prompts_gets_none_for_old_times_sake() {
    let (first, second, front) = two_replicas(0).await;
    for _ in 0..4 {
        front.post(CHAT, &conversation("ships", 3)).await;
        settled(&front).await;
    }
    assert_eq!((first.seen().len(), second.seen().len()), (4, 0));
    front.post(CHAT, &conversation("ships", 3)).await;
    assert_eq!(reasons(&front), ["order", "prefix", "prefix", "prefix", "order"]);
}

#[tokio::test]
async fn a_pin_is_kept_or_the_request_is_refused_with_the_reason() {
    let (first, second, front) = two_replicas(0).await;
    let mut instances = vec![
        instance("chat", vec![replica("chat", 0, first.address)]),
        instance("other", vec![replica("other", 0, second.address)]),
        instance("stopped", Vec::new()),
    ];
    for one in &mut instances {
        one.aliases = vec!["both".to_owned()];
    }
    instances.push(instance("elsewhere", vec![replica("elsewhere", 0, first.address)]));
    let nodes = [("node-1", true), ("gone", false)]
        .map(|(id, online)| RoutedNode { id: id.to_owned(), online })
        .to_vec();
    front.gateway.table().publish(RoutingTable::new(instances).with_nodes(nodes));
    let body = r#"{"model":"both"}"#;
    for word in ["other", "other@node-1", "stopped,other"] {
        let reply = front.post_with(CHAT, &format!("x-placement-pin: {word}\r\n"), body).await;
        assert_eq!((reply.status, reply.header("x-llama-orch-instance")), (200, Some("other")), "{word}");
    }
    for (word, status, code) in [
        ("nobody", 400, "INVALID_PARAMS"),
        ("other@nobody", 400, "INVALID_PARAMS"),
        ("elsewhere", 400, "INVALID_PARAMS"),
        ("stopped", 503, "POOL_UNREADY"),
        ("gone", 503, "NODE_UNAVAILABLE"),
        ("other@gone", 503, "NODE_UNAVAILABLE"),
    ] {
        let reply = front.post_with(CHAT, &format!("x-placement-pin: {word}\r\n"), body).await;
        assert_eq!(error_code(&reply), (status, json!(code)), "{word}");
    }
    assert_eq!(second.seen().len(), 3);
    assert!(first.seen().is_empty());
    let refused =
        front.metric("placement_decisions_total{outcome=\"refused\",pinned=\"true\"").await.unwrap();
    assert!(refused.ends_with(" 1"), "{refused}");
}

#[tokio::test]
async fn what_a_client_avoids_is_avoided_and_what_it_prefers_is_taken_if_it_can_be() {
    let (first, second, front) = two_replicas(0).await;
    let mut instances = vec![
        instance("chat", vec![replica("chat", 0, first.address)]),
        instance("other", vec![replica("other", 0, second.address)]),
    ];
    for one in &mut instances {
        one.aliases = vec!["both".to_owned()];
    }
    instances[1].replicas[0].device_mask = Some("1".to_owned());
    front.publish(instances.clone());
    let who = async |headers: &str| {
        let reply = front.post_with(CHAT, headers, r#"{"model":"both"}"#).await;
        wait_idle(&front, &key("chat", 0)).await;
        wait_idle(&front, &key("other", 0)).await;
        reply.header("x-llama-orch-instance").map(str::to_owned).ok_or_else(|| error_code(&reply))
    };
    assert_eq!(who("").await, Ok("chat".to_owned()));
    assert_eq!(who("x-placement-avoid: chat\r\n").await, Ok("other".to_owned()));
    assert_eq!(who("x-placement-prefer: other\r\n").await, Ok("other".to_owned()));
    assert_eq!(who("x-placement-device-mask: 1\r\n").await, Ok("other".to_owned()));
    let nowhere = Err((503, json!("POOL_UNAVAILABLE")));
    assert_eq!(who("x-placement-avoid: node-1\r\n").await, nowhere);
    assert_eq!(who("x-placement-device-mask: 0,1\r\n").await, nowhere);
    instances[1].replicas[0].ready = false;
    front.publish(instances);
    assert_eq!(who("x-placement-prefer: other\r\n").await, Ok("chat".to_owned()));
    assert!(front.gateway.decisions()[0].fallback);
}

#[tokio::test]
async fn the_strategy_of_the_settings_decides() {
    let (first, second, front) = two_replicas(0).await;
    front.gateway.set_strategy(Strategy::RoundRobin);
    for _ in 0..4 {
        front.post(CHAT, &conversation("ships", 3)).await;
        settled(&front).await;
    }
    assert_eq!((first.seen().len(), second.seen().len()), (2, 2));
    front.gateway.set_strategy(Strategy::Random);
    front.post(CHAT, &conversation("ships", 3)).await;
    settled(&front).await;
    front.gateway.set_strategy(Strategy::LeastLoaded);
    front.post(CHAT, &conversation("ships", 3)).await;
    assert_eq!(reasons(&front)[..3], ["order", "chance", "turn"]);
}

#[tokio::test]
async fn a_replica_that_keeps_failing_rests_and_is_tried_again_later() {
    let bad =
        Engine::start(|_| crate::support::Script { pieces: Vec::new(), then: crate::support::Then::Close });
    let good = Engine::start(|_| whole(&answer(0)));
    let front = Front::start(chat(&[bad.address, good.address])).await;
    for _ in 0..6 {
        assert_eq!(front.post(CHAT, r#"{"model":"chat"}"#).await.status, 200);
        settled(&front).await;
    }
    assert_eq!(bad.seen().len(), 3, "three failures in a row are enough");
    testkit::wait_for_async("a trial", crate::support::LIMIT, || async {
        front.post(CHAT, r#"{"model":"chat"}"#).await;
        bad.seen().len() == 4
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_keeps_failing_is_better_than_none() {
    let bad =
        Engine::start(|_| crate::support::Script { pieces: Vec::new(), then: crate::support::Then::Close });
    let front = Front::start(chat(&[bad.address])).await;
    for _ in 0..5 {
        assert_eq!(front.post(CHAT, r#"{"model":"chat"}"#).await.status, 502);
    }
    assert_eq!(bad.seen().len(), 5);
    let front = Front::start(chat(&[bad.address, nobody().await])).await;
    for _ in 0..4 {
        assert!(front.post(CHAT, r#"{"model":"chat"}"#).await.status >= 502);
    }
    assert!(bad.seen().len() > 5);
}
