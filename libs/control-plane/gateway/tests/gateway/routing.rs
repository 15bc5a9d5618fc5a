//! Routes that a user has written down: chains, changed parameters, other people's servers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gateway::{Limits, Outcome, ProviderKind, ProviderSettings, Rewrite, RouteRule, RoutedInstance, Routes};
use orch_core::InstanceName;
use serde_json::{Value, json};

use crate::support::{
    Engine, Front, Then, answer_with, chat, events, events_without_end, instance, nobody, whole,
};

const FAST: &str = r#"{"model":"fast","messages":[],"seed":7}"#;

fn provider(name: &str, kind: ProviderKind, base_url: String) -> ProviderSettings {
    let name = InstanceName::new(name).unwrap();
    ProviderSettings { name, kind, base_url, api_key: Some("sk-far".to_owned()), api_key_env: None }
}

fn openai_at(address: SocketAddr) -> ProviderSettings {
    provider("far", ProviderKind::OpenAi, format!("http://{address}/v1"))
}

fn to(places: &[&str]) -> RouteRule {
    RouteRule { to: places.iter().map(|&place| place.to_owned()).collect(), rewrite: Rewrite::default() }
}

/// A gateway whose model `fast` follows this rule.
async fn front(instances: Vec<RoutedInstance>, rule: RouteRule, providers: Vec<ProviderSettings>) -> Front {
    let routes = Routes::new(BTreeMap::from([("fast".to_owned(), rule)]), providers);
    Front::start_routed(instances, Limits::default(), routes).await
}

#[tokio::test]
async fn the_first_place_of_a_chain_that_can_serve_does() {
    let engine = Engine::start(|_| whole("{}"));
    let mut instances = chat(&[engine.address]);
    instances.push(instance("stopped", Vec::new()));
    let front = front(instances, to(&["gone", "stopped", "chat"]), Vec::new()).await;
    let reply = front.post("/v1/chat/completions", FAST).await;
    assert_eq!((reply.status, reply.header("x-llama-orch-instance")), (200, Some("chat")));
    assert_eq!(engine.seen()[0].body, FAST.as_bytes(), "nothing had to be changed");
    let records = front.records();
    assert_eq!(
        (records.len(), records[0].outcome, records[0].model.as_deref()),
        (1, Outcome::Done, Some("fast"))
    );
}

#[tokio::test]
async fn the_last_place_of_a_chain_says_why_it_cannot() {
    let front = front(vec![instance("stopped", Vec::new())], to(&["gone", "stopped"]), Vec::new()).await;
    let reply = front.post("/v1/chat/completions", FAST).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("llama-orch up stopped"), "{}", reply.text());
}

#[tokio::test]
async fn a_route_changes_parameters_and_nothing_else() {
    let engine = Engine::start(|_| whole("{}"));
    let fields = |value: Value| value.as_object().cloned().unwrap();
    let rewrite = Rewrite {
        set: fields(json!({"temperature": 0})),
        default: fields(json!({"seed": 1, "max_tokens": 5})),
        strip: vec!["messages".to_owned()],
    };
    let front =
        front(chat(&[engine.address]), RouteRule { to: vec!["chat".to_owned()], rewrite }, Vec::new()).await;
    front.post("/v1/chat/completions", FAST).await;
    let direct = FAST.replace("fast", "chat");
    front.post("/v1/chat/completions", &direct).await;
    let seen = engine.seen();
    let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body, json!({"model": "fast", "seed": 7, "max_tokens": 5, "temperature": 0}));
    assert_eq!(seen[1].body, direct.as_bytes(), "the instance's own name has no rule");
}

#[tokio::test]
async fn a_provider_gets_its_own_key_and_model_name_and_nothing_that_tells_of_the_client() {
    let stream = ["data: {\"id\":1}\n\n", "data: [DONE]\n\n"];
    let far = Engine::start(move |_| events(&stream));
    let front = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(far.address)]).await;
    let headers =
        "authorization: Bearer ours\r\ncookie: a=b\r\nx-custom: 1\r\ncontent-type: application/json\r\n";
    let reply = front.post_with("/v1/chat/completions", headers, FAST).await;
    assert_eq!((reply.status, reply.text()), (200, stream.concat()));
    assert_eq!(reply.header("x-llama-orch-instance"), Some("far"));
    let seen = &far.seen()[0];
    assert_eq!(seen.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some("Bearer sk-far"));
    assert_eq!((seen.header("cookie"), seen.header("x-custom")), (None, None));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["model"], "gpt");
}

#[tokio::test]
async fn anthropic_gets_its_key_as_it_wants_it() {
    let far = Engine::start(|_| whole("{}"));
    let settings = provider("far", ProviderKind::Anthropic, format!("http://{}", far.address));
    let front = front(Vec::new(), to(&["far/claude"]), vec![settings]).await;
    assert_eq!(front.post("/v1/messages", FAST).await.status, 200);
    let seen = &far.seen()[0];
    assert_eq!((seen.header("x-api-key"), seen.header("authorization")), (Some("sk-far"), None));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
}

#[tokio::test]
async fn a_provider_that_turns_a_request_away_or_is_not_there_leaves_it_to_the_next_place() {
    let limited = Engine::start(|_| answer_with("429 Too Many Requests", "application/json", "{}"));
    let engine = Engine::start(|_| whole("{}"));
    for far in [limited.address, nobody().await] {
        let front = front(chat(&[engine.address]), to(&["far/gpt", "chat"]), vec![openai_at(far)]).await;
        let reply = front.post("/v1/chat/completions", FAST).await;
        assert_eq!((reply.status, reply.header("x-llama-orch-instance")), (200, Some("chat")));
    }
    let alone = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(limited.address)]).await;
    let reply = alone.post("/v1/chat/completions", FAST).await;
    assert_eq!(reply.status, 429, "there is nobody else to ask");
    let nowhere = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(nobody().await)]).await;
    let reply = nowhere.post("/v1/chat/completions", FAST).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("provider far: it cannot be reached"), "{}", reply.text());
}

#[tokio::test]
async fn a_provider_that_breaks_off_ends_the_stream_with_one_error_event() {
    let far = Engine::start(|_| events_without_end(&["data: {\"id\":1}\n\n"], Then::Close));
    let front = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(far.address)]).await;
    let reply = front.post("/v1/chat/completions", FAST).await;
    let text = reply.text();
    assert!(text.contains("WORKER_RESET") && !reply.complete, "{text}");
    assert_eq!(front.records()[0].outcome, Outcome::Broken);
}

#[tokio::test]
async fn a_missing_key_is_told_with_its_variable() {
    let mut settings = openai_at(nobody().await);
    settings.api_key = None;
    settings.api_key_env = Some("FAR_KEY".to_owned());
    let front = front(Vec::new(), to(&["far/gpt"]), vec![settings]).await;
    let reply = front.post("/v1/chat/completions", FAST).await;
    assert!(reply.status == 503 && reply.text().contains("set FAR_KEY"), "{}", reply.text());
}

#[tokio::test]
async fn routes_are_listed_with_what_they_lead_to() {
    let engine = Engine::start(|_| whole("{}"));
    let front =
        front(chat(&[engine.address]), to(&["stopped", "far/gpt"]), vec![openai_at(nobody().await)]).await;
    let models = front.get("/v1/models").await.json();
    let listed: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(listed, ["chat", "fast"]);
    let fast = front.get("/v1/models/fast").await.json();
    assert_eq!((&fast["root"], &fast["owned_by"]), (&json!("gpt"), &json!("far")));
}
