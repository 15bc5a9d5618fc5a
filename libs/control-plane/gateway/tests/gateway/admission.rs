//! Slots and queues: who is let in, who waits, who is told no, and in which order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{Caller, Class, DrainOutcome, Limits, Outcome, Rewrite, RouteRule, RoutedInstance, Routes};
use orch_runtime::FullPolicy;
use tokio::task::JoinSet;

use crate::gate::{Gate, queued, wait_queued};
use crate::support::{CALLER, Engine, Front, LIMIT, Reply, answer_with, chat, key, wait_idle, whole};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"chat"}"#;

fn one_slot(gate: &Gate) -> Vec<RoutedInstance> {
    let mut instances = chat(&[gate.address]);
    instances[0].replicas[0].slots_total = 1;
    instances
}

fn small_queue(policy: FullPolicy) -> Limits {
    Limits { queue: 1, full_policy: policy, ..Limits::default() }
}

/// A request on its way, with these further headers.
fn send(clients: &mut JoinSet<Reply>, front: &Arc<Front>, headers: &str, body: &str) {
    let (front, headers, body) = (Arc::clone(front), headers.to_owned(), body.to_owned());
    clients.spawn(async move { front.post_with(CHAT, &headers, &body).await });
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn retry_after(reply: &Reply) -> u64 {
    reply.header("retry-after").expect("a Retry-After").parse().unwrap()
}

#[tokio::test]
async fn a_hundred_clients_never_get_more_slots_than_there_are() {
    let gates = [Gate::start().await, Gate::start().await];
    let front = Arc::new(Front::start(chat(&[gates[0].address, gates[1].address])).await);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        send(&mut clients, &front, "", BODY);
    }
    wait_queued(&front, 96).await;
    assert_eq!(
        front.metric("queue_depth{priority=\"interactive\"}").await.unwrap().rsplit(' ').next(),
        Some("96")
    );
    for gate in &gates {
        gate.let_go(100);
    }
    while let Some(reply) = clients.join_next().await {
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.header("x-llama-orch-queue-ms").is_some_and(|it| it.parse::<u64>().is_ok()));
    }
    for (gate, number) in gates.iter().zip(0..) {
        assert_eq!(gate.most(), 2, "two slots");
        wait_idle(&front, &key("chat", number)).await;
    }
    assert_eq!(gates.iter().map(|gate| gate.bodies().len()).sum::<usize>(), 100, "each was served once");
    let enqueued = front.metric("tasks_enqueued_total{priority=\"interactive\"}").await.unwrap();
    assert!(enqueued.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 96, "{enqueued}");
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_out_of_it_within_a_second() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(one_slot(&gate)).await);
    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    let leaver = front.open(CHAT, BODY).await;
    wait_queued(&front, 1).await;
    drop(leaver);
    let a_second = Duration::from_secs(1);
    testkit::wait_for_async("the queue to be empty", a_second, || async { queued(&front) == 0 }).await;
    gate.let_go(2);
    assert_eq!(clients.join_next().await.unwrap().unwrap().status, 200);
    assert_eq!(gate.bodies().len(), 1, "the one that left was never sent");
    let outcomes: Vec<_> = front.records().iter().map(|record| (record.outcome, record.attempts)).collect();
    assert!(outcomes.contains(&(Outcome::Canceled, 0)), "{outcomes:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start_with(one_slot(&gate), small_queue(FullPolicy::Reject)).await);
    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    send(&mut clients, &front, "x-priority: batch\r\n", BODY);
    wait_queued(&front, 1).await;
    let refused = front.post(CHAT, BODY).await;
    assert_eq!(code(&refused), (429, "ADMISSION_REJECT".to_owned()));
    assert!((1..=60).contains(&retry_after(&refused)));
    let counted = front.metric("admission_backpressure_events_total").await;
    assert_eq!(counted.as_deref(), Some("admission_backpressure_events_total{policy=\"reject\"} 1"));
    gate.let_go(2);
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200, "whoever waited already is served");
    }
}

#[tokio::test]
async fn a_full_queue_may_drop_the_oldest_batch_request_which_is_told() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start_with(one_slot(&gate), small_queue(FullPolicy::DropLru)).await);
    let (mut clients, mut batch) = (JoinSet::new(), JoinSet::new());
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    send(&mut batch, &front, "x-priority: batch\r\n", BODY);
    wait_queued(&front, 1).await;
    send(&mut clients, &front, "", r#"{"model":"chat","n":2}"#);
    let dropped = batch.join_next().await.unwrap().unwrap();
    assert_eq!(code(&dropped), (429, "QUEUE_FULL_DROP_LRU".to_owned()));
    assert!(retry_after(&dropped) >= 1);
    gate.let_go(2);
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
    }
    assert_eq!(gate.bodies(), [BODY, r#"{"model":"chat","n":2}"#]);
}

#[tokio::test]
async fn a_deadline_is_held_at_once_by_what_is_measured_or_in_the_queue() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(one_slot(&gate)).await);
    let passed = front.post_with(CHAT, "x-deadline-ms: 0\r\n", BODY).await;
    assert_eq!(code(&passed), (400, "DEADLINE_UNMET".to_owned()));
    assert_eq!(passed.header("x-should-retry"), Some("false"));

    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    let waited = front.post_with(CHAT, "x-deadline-ms: 50\r\n", BODY).await;
    assert_eq!(code(&waited), (504, "DEADLINE_UNMET".to_owned()), "no time is known yet, so it waited");
    gate.let_go(1);
    clients.join_next().await.unwrap().unwrap();
    wait_idle(&front, &key("chat", 0)).await;

    // The first request has taken more than the 50 ms that the second waited for it.
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(2).await;
    let hopeless = front.post_with(CHAT, "x-deadline-ms: 10\r\n", BODY).await;
    assert_eq!(code(&hopeless), (429, "ADMISSION_REJECT".to_owned()));
    assert!(retry_after(&hopeless) >= 1);
    assert_eq!(gate.bodies().len(), 2, "neither was ever sent");
    let forecast = front.gateway.forecast(Some("chat"), Class::Batch, &Caller::default()).unwrap();
    assert!(forecast.position == 0 && forecast.starts_in.is_some_and(|it| it >= Duration::from_millis(50)));
    gate.let_go(1);
    assert_eq!(clients.join_next().await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn interactive_requests_go_first_and_keys_take_turns() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(one_slot(&gate)).await);
    let mut clients = JoinSet::new();
    let asked = |name: &str| format!(r#"{{"model":"chat","user":"{name}"}}"#);
    send(&mut clients, &front, "", &asked("first"));
    gate.wait_seen(1).await;
    let arrivals = [
        ("a", "batch", "a-batch"),
        ("a", "interactive", "a1"),
        ("a", "interactive", "a2"),
        ("a", "interactive", "a3"),
        ("b", "interactive", "b1"),
    ];
    for (number, (caller, class, name)) in arrivals.into_iter().enumerate() {
        send(&mut clients, &front, &format!("{CALLER}: {caller}\r\nx-priority: {class}\r\n"), &asked(name));
        wait_queued(&front, number + 1).await;
    }
    for seen in 2..=6 {
        gate.let_go(1);
        gate.wait_seen(seen).await;
    }
    gate.let_go(1);
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
    }
    let order = ["first", "a1", "b1", "a2", "a3", "a-batch"];
    assert_eq!(gate.bodies(), order.map(asked));
}

#[tokio::test]
async fn a_drain_lets_nobody_in_and_who_waits_goes_to_what_comes_next() {
    let (old, new) = (Gate::start().await, Gate::start().await);
    let with = |gate: &Gate| {
        let mut instances = one_slot(gate);
        instances[0].loadable = gateway::Loadable::Starting;
        instances
    };
    let front = Arc::new(Front::start(with(&old)).await);
    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    old.wait_seen(1).await;
    send(&mut clients, &front, "", BODY);
    wait_queued(&front, 1).await;
    let table = front.gateway.table().clone();
    let replica = key("chat", 0);
    let drain = table.drain(&replica, LIMIT);
    let end = async {
        old.let_go(5);
        clients.join_next().await.unwrap().unwrap()
    };
    let (outcome, first) = tokio::join!(drain, end);
    assert_eq!((outcome, first.status), (DrainOutcome::Idle, 200));
    assert_eq!((queued(&front), old.bodies().len()), (1, 1), "the other one still waits");
    new.let_go(1);
    front.publish(with(&new));
    assert_eq!(clients.join_next().await.unwrap().unwrap().status, 200);
    assert_eq!(new.bodies().len(), 1);
}

#[tokio::test]
async fn a_name_and_its_alias_share_the_slots_in_turns() {
    let gate = Gate::start().await;
    let mut instances = one_slot(&gate);
    instances[0].aliases.push("nick".to_owned());
    let front = Arc::new(Front::start(instances).await);
    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    for (number, name) in ["chat", "chat", "nick"].into_iter().enumerate() {
        send(&mut clients, &front, "", &format!(r#"{{"model":"{name}","n":{number}}}"#));
        wait_queued(&front, number + 1).await;
    }
    let views = front.gateway.queues();
    let shown: Vec<_> = views.iter().map(|it| (it.route.as_deref(), it.interactive, it.batch)).collect();
    assert_eq!(shown, [(Some("chat"), 2, 0), (Some("nick"), 1, 0)]);
    for seen in 2..=4 {
        gate.let_go(1);
        gate.wait_seen(seen).await;
    }
    gate.let_go(1);
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
    }
    let second_or_third = &gate.bodies()[1..3];
    assert!(second_or_third.iter().any(|body| body.contains("nick")), "{:?}", gate.bodies());
}

#[tokio::test]
async fn what_takes_no_slot_does_not_wait_for_one() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(one_slot(&gate)).await);
    let mut clients = JoinSet::new();
    send(&mut clients, &front, "", BODY);
    gate.wait_seen(1).await;
    let counting = front.post("/tokenize", BODY);
    let let_go = async {
        gate.wait_seen(2).await;
        gate.let_go(2);
    };
    let (counted, ()) = tokio::join!(counting, let_go);
    assert_eq!(counted.status, 200);
    assert_eq!(clients.join_next().await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn the_next_place_of_a_chain_may_need_the_slot_that_the_last_one_gave_back() {
    let asked = AtomicUsize::new(0);
    let engine = Engine::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => answer_with("500 Internal Server Error", "application/json", "{}"),
        _ => whole("{}"),
    });
    let mut instances = chat(&[engine.address]);
    instances[0].replicas[0].slots_total = 1;
    instances[0].aliases.push("nick".to_owned());
    let places = ["chat", "nick"].map(str::to_owned).to_vec();
    let rule = RouteRule { to: places, rewrite: Rewrite::default() };
    let routes = Routes::new(BTreeMap::from([("fast".to_owned(), rule)]), Vec::new());
    let front = Front::start_routed(instances, Limits::default(), routes).await;
    let reply = front.post(CHAT, r#"{"model":"fast"}"#).await;
    assert_eq!((reply.status, engine.seen().len()), (200, 2), "{}", reply.text());
    wait_idle(&front, &key("chat", 0)).await;
}
