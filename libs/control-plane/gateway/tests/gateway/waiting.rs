//! Waiting for what is not there yet: instances that load, and what clients see meanwhile.

use std::sync::Arc;
use std::time::Duration;

use gateway::{Loadable, RoutedInstance};
use orch_core::UnixMillis;
use tokio::task::JoinSet;

use crate::gate::{Gate, STREAM, wait_queued};
use crate::support::{Engine, Front, LIMIT, Reply, chat, instance, key, nobody, read_until, whole};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"chat"}"#;
const STREAMING: &str = r#"{"model":"chat","stream":true}"#;

fn unloaded(name: &str, loadable: Loadable) -> RoutedInstance {
    let mut unloaded = instance(name, Vec::new());
    unloaded.loadable = loadable;
    unloaded
}

fn loaded(gate: &Gate) -> Vec<RoutedInstance> {
    let mut instances = chat(&[gate.address]);
    instances[0].loadable = Loadable::OnDemand;
    instances
}

fn post(clients: &mut JoinSet<Reply>, front: &Arc<Front>, path: &'static str) {
    let front = Arc::clone(front);
    clients.spawn(async move { front.post(path, BODY).await });
}

#[tokio::test]
async fn a_stream_that_waits_in_the_queue_shows_its_place_and_then_the_engines_own_bytes() {
    let gate = Gate::start().await;
    let mut instances = chat(&[gate.address]);
    instances[0].replicas[0].slots_total = 1;
    let front = Arc::new(Front::start(instances).await);
    let mut clients = JoinSet::new();
    post(&mut clients, &front, CHAT);
    gate.wait_seen(1).await;
    post(&mut clients, &front, CHAT);
    wait_queued(&front, 1).await;
    let mut stream = front.open(CHAT, STREAMING).await;
    let begun = read_until(&mut stream, ": queued 2\n\n").await;
    let head = begun.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{begun}");
    assert!(head.contains("x-request-id:"), "{begun}");
    gate.let_go(3);
    read_until(&mut stream, STREAM).await;
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200, "a plain client just waits");
    }
}

#[tokio::test]
async fn requests_for_a_loading_instance_wait_together_until_it_serves() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(vec![unloaded("chat", Loadable::OnDemand)]).await);
    let mut clients = JoinSet::new();
    for path in [CHAT, CHAT, "/tokenize", "/v1/embeddings"] {
        post(&mut clients, &front, path);
    }
    let mut stream = front.open("/v1/messages", STREAMING).await;
    read_until(&mut stream, ": loading\n\n").await;
    let table = front.gateway.table();
    testkit::wait_for_async("the demand", LIMIT, || async { table.demand()[0].waiting == 5 }).await;
    gate.let_go(5);
    front.publish(loaded(&gate));
    while let Some(reply) = clients.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
    }
    read_until(&mut stream, "[DONE]").await;
    testkit::wait_for_async("nothing to be wanted", LIMIT, || async {
        let demand = table.demand().remove(0);
        (demand.waiting, demand.oldest, demand.in_flight) == (0, None, 0) && demand.last_used.is_some()
    })
    .await;
}

#[tokio::test]
async fn reading_never_makes_anything_load() {
    let front = Front::start(vec![unloaded("chat", Loadable::OnDemand)]).await;
    let reply = front.get("/props?model=chat").await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(front.gateway.table().demand()[0].waiting, 0);
}

#[tokio::test]
async fn what_nobody_loads_any_more_is_told_to_those_who_wait_for_it() {
    let front = Arc::new(Front::start(vec![unloaded("chat", Loadable::Starting)]).await);
    let mut clients = JoinSet::new();
    post(&mut clients, &front, CHAT);
    let mut openai = front.open(CHAT, STREAMING).await;
    let mut anthropic = front.open("/v1/messages", STREAMING).await;
    for stream in [&mut openai, &mut anthropic] {
        read_until(stream, ": loading\n\n").await;
    }
    front.publish(vec![unloaded("chat", Loadable::No)]);
    let refused = clients.join_next().await.unwrap().unwrap();
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &"MODEL_NOT_AVAILABLE".into()));
    let last = read_until(&mut openai, "\n\n").await;
    assert!(last.contains("data: {\"error\":{") && last.contains("MODEL_NOT_AVAILABLE"), "{last}");
    let last = read_until(&mut anthropic, "\n\n").await;
    assert!(last.contains("event: error\n") && last.contains("overloaded_error"), "{last}");
}

#[tokio::test]
async fn a_replica_that_is_good_again_gets_those_who_wait_for_it() {
    let address = nobody().await;
    let mut instances = chat(&[address]);
    instances[0].loadable = Loadable::Starting;
    let front = Arc::new(Front::start(instances).await);
    let mut clients = JoinSet::new();
    post(&mut clients, &front, CHAT);
    wait_queued(&front, 1).await;
    let _engine = Engine::start_at(address, |_| whole("{}"));
    front.gateway.table().note_good_probe(&key("chat", 0), UnixMillis(2));
    let reply = clients.join_next().await.unwrap().unwrap();
    assert_eq!((reply.status, reply.header("x-llama-orch-attempt")), (200, Some("2")));
}

#[tokio::test]
async fn the_demand_of_a_shared_name_loads_one_instance_and_changes_are_told() {
    let shared = |name| {
        let mut shared = unloaded(name, Loadable::OnDemand);
        shared.aliases.push("both".to_owned());
        shared
    };
    let front = Front::start(vec![shared("a"), shared("b")]).await;
    let table = front.gateway.table();
    table.demand_changed().await;
    let client = front.open(CHAT, r#"{"model":"both"}"#).await;
    let changed = tokio::time::timeout(LIMIT, table.demand_changed()).await;
    assert!(changed.is_ok(), "somebody waits");
    let waiting: Vec<_> =
        table.demand().iter().map(|demand| (demand.waiting, demand.oldest.is_some())).collect();
    assert_eq!(waiting, [(1, true), (0, false)]);
    drop(client);
    tokio::time::timeout(LIMIT, table.demand_changed()).await.expect("nobody waits any more");
    assert!(table.demand().iter().all(|demand| demand.waiting == 0));
}

#[tokio::test]
async fn an_ollama_client_just_waits() {
    let gate = Gate::start().await;
    let front = Arc::new(Front::start(vec![unloaded("chat", Loadable::Starting)]).await);
    let mut clients = JoinSet::new();
    post(&mut clients, &front, "/api/generate");
    wait_queued(&front, 1).await;
    gate.let_go(1);
    front.publish(loaded(&gate));
    let reply = clients.join_next().await.unwrap().unwrap();
    assert!(!reply.text().contains("loading"), "{}", reply.text());
    assert_eq!(gate.bodies().len(), 1, "and is served");
}

#[tokio::test]
async fn who_loads_is_told_when_something_becomes_idle_that_could_make_room() {
    let gate = Gate::start().await;
    let mut instances = chat(&[gate.address]);
    instances.push(unloaded("other", Loadable::OnDemand));
    let front = Arc::new(Front::start(instances).await);
    let table = front.gateway.table();
    let mut clients = JoinSet::new();
    post(&mut clients, &front, CHAT);
    gate.wait_seen(1).await;
    let waiting = front.open(CHAT, r#"{"model":"other"}"#).await;
    wait_queued(&front, 1).await;
    table.demand_changed().await;
    assert_eq!(table.demand().iter().map(|it| it.in_flight).collect::<Vec<_>>(), [1, 0]);
    gate.let_go(1);
    let idle = async {
        while table.demand()[0].in_flight > 0 {
            table.demand_changed().await;
        }
    };
    tokio::time::timeout(LIMIT, idle).await.expect("it is told");
    drop(waiting);
}

#[tokio::test]
async fn a_node_that_is_none_has_no_queue_and_makes_nothing_load() {
    let front = Front::start(vec![unloaded("chat", Loadable::OnDemand)]).await;
    let reply = front.post(CHAT, r#"{"model":"chat@anywhere"}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &"NODE_UNAVAILABLE".into()));
    assert_eq!(front.gateway.table().demand()[0].waiting, 0);
}

#[tokio::test]
async fn time_in_a_queue_is_told_as_that_and_is_no_overhead() {
    let gate = Gate::start().await;
    let mut instances = chat(&[gate.address]);
    instances[0].replicas[0].slots_total = 1;
    let front = Arc::new(Front::start(instances).await);
    let mut clients = JoinSet::new();
    post(&mut clients, &front, CHAT);
    gate.wait_seen(1).await;
    let mut stream = front.open(CHAT, STREAMING).await;
    // It shows its place when it has waited for a second.
    read_until(&mut stream, ": queued 1\n\n").await;
    gate.let_go(2);
    read_until(&mut stream, STREAM).await;
    testkit::wait_for_async("both records", LIMIT, || async { front.records().len() == 2 }).await;
    let queued: Vec<_> = front.records().iter().map(|record| record.queued.unwrap()).collect();
    assert!(queued[0].is_zero() && queued[1] >= Duration::from_millis(900), "{queued:?}");
    let sum = front.metric("gateway_overhead_us_sum").await.unwrap();
    let micros: f64 = sum.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(micros < 800_000.0, "{sum}");
}

#[tokio::test]
async fn what_loads_when_it_is_asked_for_is_listed_before_it_is_loaded() {
    let instances =
        [Loadable::OnDemand, Loadable::Starting, Loadable::No].into_iter().zip(["chat", "new", "off"]);
    let front = Front::start(instances.map(|(loadable, name)| unloaded(name, loadable)).collect()).await;
    let listed = front.get("/v1/models").await.json();
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["chat"]);
    assert_eq!(
        listed["data"][0]["meta"],
        serde_json::json!({"slots": 0}),
        "its context is known when it is loaded"
    );
    assert_eq!(front.get("/v1/models/chat").await.status, 200);
    assert_eq!(front.get("/api/tags").await.json()["models"][0]["name"], "chat");
    assert_eq!(front.get("/api/ps").await.json()["models"], serde_json::json!([]));
}
