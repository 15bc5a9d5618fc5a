//! What workflows ask through, against a real engine behind a real daemon: our own gateway in each of its dialects.

#![cfg(target_os = "linux")]

mod support;

use std::sync::Arc;

use llm_providers::{Access, Api, ProviderKind, ProviderSetting, Providers, Token};
use serde_json::{Map, Value, json};
use support::home::{Daemon, Home};
use workflow::{Answer, AnswerPiece, AskModel as _, CallFailure, ChatMessage, FinishReason, ModelRequest};
use workflow_spec::{FailureKind, Role};

/// One provider for each dialect of the gateway.
const DIALECTS: [&str; 4] = ["local", "ollama", "anthropic", "responses"];

struct Deaf;

impl AnswerPiece for Deaf {
    fn piece(&self, _text: &str) {}
}

fn providers(daemon: &Daemon) -> Providers {
    let url = format!("http://{}", daemon.address);
    let token = || Token::new(&daemon.token);
    let access = Access { base_url: url.clone(), token: token() };
    Providers::new(vec![
        ProviderSetting::local(move || Some(access.clone())),
        ProviderSetting::new("ollama", ProviderKind::Ollama, &url, token()),
        ProviderSetting::new("anthropic", ProviderKind::Anthropic, &url, token()),
        ProviderSetting::new("responses", ProviderKind::Local, &url, token()).api(Api::Responses),
    ])
}

fn question(provider: &str, options: &Value) -> ModelRequest {
    ModelRequest {
        provider: provider.to_owned(),
        model: "tiny".to_owned(),
        messages: vec![ChatMessage { role: Role::User, content: "Tell a story.".to_owned() }],
        options: options.as_object().cloned().unwrap_or_else(Map::new),
        schema: None,
        tools: None,
    }
}

async fn ask(providers: &Providers, request: ModelRequest) -> Result<Answer, CallFailure> {
    providers.ask(request, Arc::new(Deaf)).await
}

#[tokio::test]
async fn our_own_gateway_answers_in_each_dialect_that_a_workflow_speaks() {
    let home = Home::real();
    home.instance("tiny", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "tiny"]);
    let providers = providers(&daemon);
    for dialect in DIALECTS {
        let facts = providers.facts(dialect, None).await.unwrap();
        assert_eq!(facts.model.trim_end_matches(":latest"), "tiny", "{dialect}");
        let answer =
            ask(&providers, question(dialect, &json!({"max_tokens": 9, "temperature": 0}))).await.unwrap();
        assert_eq!(
            (answer.usage.completion, answer.finish),
            (9, FinishReason::Length),
            "{dialect}: {answer:?}"
        );
        assert!(!answer.text.is_empty() && answer.usage.prompt > 3, "{dialect}: {answer:?}");
        let missing = ModelRequest { model: "nobody".to_owned(), ..question(dialect, &json!({})) };
        let failure = ask(&providers, missing).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{dialect}: {failure}");
        assert!(failure.message.contains("tiny"), "{dialect} names what there is: {failure}");
    }
    for dialect in ["local", "ollama", "responses"] {
        let mut request = question(dialect, &json!({"max_tokens": 100}));
        request.schema = Some(Arc::new(json!({"type": "object", "required": ["mood"],
            "additionalProperties": false, "properties": {"mood": {"enum": ["good", "bad"]}}})));
        let answer = ask(&providers, request).await.unwrap();
        let json: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(json["mood"] == "good" || json["mood"] == "bad", "{dialect}: {json}");
    }
    home.ok(&["down", "tiny"]);
    let failure = ask(&providers, question("local", &json!({}))).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Validation | FailureKind::Overloaded), "{failure:?}");
}
