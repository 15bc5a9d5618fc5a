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

const CLAUDE_STREAM: [&str; 4] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":1}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

#[tokio::test]
async fn an_anthropic_provider_serves_openai_and_ollama_clients_in_their_own_words() {
    let far = Engine::start(|_| events(&CLAUDE_STREAM));
    let settings = provider("far", ProviderKind::Anthropic, format!("http://{}", far.address));
    let fields = json!({"temperature": 0.5}).as_object().cloned().unwrap();
    let rewrite = Rewrite { set: fields, ..Rewrite::default() };
    let rule = RouteRule { to: vec!["far/claude".to_owned()], rewrite };
    let front = front(Vec::new(), rule, vec![settings]).await;
    let question = json!({"model": "fast", "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let openai = front.post("/v1/chat/completions", &question.to_string()).await;
    assert_eq!((openai.status, openai.header("content-type")), (200, Some("text/event-stream")));
    let text = openai.text();
    assert!(text.contains("\"content\":\"hi\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let ollama = front.post("/api/chat", &question.to_string()).await;
    let first: Value = serde_json::from_str(ollama.text().lines().next().unwrap()).unwrap();
    assert_eq!((&first["model"], &first["message"]["content"]), (&json!("fast"), &json!("hi")));
    for seen in far.seen() {
        assert_eq!(seen.line, "POST /v1/messages HTTP/1.1");
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!((&body["model"], &body["temperature"]), (&json!("claude"), &json!(0.5)));
    }
    assert_eq!(front.records()[1].usage.prompt_tokens, Some(3));
    let embeddings = front.post("/v1/embeddings", r#"{"model":"fast","input":"x"}"#).await;
    assert_eq!(embeddings.status, 400, "it has nothing like that: {}", embeddings.text());
}

#[tokio::test]
async fn an_openai_provider_serves_anthropic_clients_and_its_errors_are_told_in_their_words() {
    let answer = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let far = Engine::start(move |seen| {
        if seen.of_connection == 0 {
            whole(answer)
        } else {
            answer_with("400 Bad Request", "application/json", r#"{"error":{"message":"no such model"}}"#)
        }
    });
    let front = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(far.address)]).await;
    let question = r#"{"model":"fast","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#;
    let message = front.post("/v1/messages", question).await.json();
    assert_eq!((&message["type"], &message["content"][0]["text"]), (&json!("message"), &json!("hi")));
    assert_eq!((&message["stop_reason"], &message["model"]), (&json!("end_turn"), &json!("fast")));
    assert_eq!(far.seen()[0].line, "POST /v1/chat/completions HTTP/1.1");
    let refused = front.post("/v1/messages", question).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"], json!({"type": "invalid_request_error", "message": "no such model"}));
}

#[tokio::test]
async fn a_provider_is_asked_to_infer_and_for_nothing_else_of_its_account() {
    for kind in [ProviderKind::OpenAi, ProviderKind::Anthropic, ProviderKind::Ollama] {
        let far = Engine::start(|_| whole("{}"));
        let settings = provider("far", kind, format!("http://{}", far.address));
        let front = front(Vec::new(), to(&["far/gpt"]), vec![settings]).await;
        for path in
            ["/v1/fine_tuning/jobs", "/v1/../v1/files", "/v1/messages/batches", "/v1/organization/projects"]
        {
            assert_eq!(front.post(path, FAST).await.status, 400, "{path}");
        }
        for path in ["/v1/files?model=fast", "/v1/responses?model=fast", "/v1/messages?model=fast"] {
            assert_eq!(front.get(path).await.status, 400, "{path}");
        }
        assert!(far.seen().is_empty(), "{kind:?}: {:?}", far.seen()[0].line);
    }
}

#[tokio::test]
async fn what_a_provider_tells_of_its_account_stays_here() {
    let headers = "200 OK\r\nopenai-organization: acme\r\nset-cookie: a=b\r\nx-ratelimit-limit-requests: 9\r\nretry-after: 3";
    let far = Engine::start(move |_| answer_with(headers, "application/json", "{}"));
    let front = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(far.address)]).await;
    let reply = front.post("/v1/chat/completions", FAST).await;
    assert_eq!((reply.status, reply.header("retry-after")), (200, Some("3")));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    for name in ["openai-organization", "set-cookie", "x-ratelimit-limit-requests"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_take_our_key_is_our_fault_and_leaves_the_request_to_the_next_place() {
    let far = Engine::start(|_| {
        answer_with("401 Unauthorized", "application/json", r#"{"error":{"message":"bad key sk-****1234"}}"#)
    });
    let engine = Engine::start(|_| whole("{}"));
    let alone = front(Vec::new(), to(&["far/gpt"]), vec![openai_at(far.address)]).await;
    let reply = alone.post("/v1/chat/completions", FAST).await;
    assert_eq!(reply.status, 503);
    let text = reply.text();
    assert!(text.contains("does not accept the key") && !text.contains("1234"), "{text}");
    let front = front(chat(&[engine.address]), to(&["far/gpt", "chat"]), vec![openai_at(far.address)]).await;
    assert_eq!(front.post("/v1/chat/completions", FAST).await.status, 200);
}
