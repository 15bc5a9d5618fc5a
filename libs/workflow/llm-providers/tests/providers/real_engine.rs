//! A real `llama-server` behind its OpenAI and Anthropic endpoints.

use std::sync::Arc;
use std::time::Duration;

use llm_providers::{ProviderKind, ProviderSetting, Providers};
use serde_json::{Value, json};
use testkit::{RunningEngine, wait_for_async};
use workflow::{AskModel as _, FinishReason};
use workflow_spec::FailureKind;

use crate::support::{Heard, ask, question, with_options};

fn engine() -> (tempfile::TempDir, RunningEngine, Providers) {
    let folder = tempfile::tempdir().unwrap();
    let engine = RunningEngine::real(folder.path(), &["--parallel", "2"]);
    let url = format!("http://{}", engine.address());
    let setting = |name: &str, kind| ProviderSetting::new(name, kind, &url, None);
    let providers = Providers::new(vec![
        setting("local", ProviderKind::Local),
        setting("anthropic", ProviderKind::Anthropic),
        setting("responses", ProviderKind::Local).api(llm_providers::Api::Responses),
        setting("compatible", ProviderKind::OpenAiCompatible).api(llm_providers::Api::Responses),
    ]);
    (folder, engine, providers)
}

#[tokio::test]
async fn a_real_engine_streams_in_all_its_protocols() {
    let (_folder, _engine, providers) = engine();
    let model = providers.facts("local", None).await.unwrap().model;
    assert!(model.contains("tiny"), "{model}");
    for name in ["local", "anthropic", "responses"] {
        let heard = Arc::new(Heard::default());
        let options = json!({"max_tokens": 12, "temperature": 0});
        let request = with_options(question(name, "Tell a story."), options);
        let answer = providers.ask(request, heard.clone()).await.unwrap();
        assert_eq!(heard.pieces().concat(), answer.text, "{name}");
        assert_eq!(
            (answer.finish, answer.usage.completion),
            (FinishReason::Length, 12),
            "{name}: {answer:?}"
        );
        assert!(answer.usage.prompt > 5 && answer.first_token.is_some(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_schema_is_enforced_on_a_model_that_knows_nothing() {
    let (_folder, _engine, providers) = engine();
    let schema = json!({"type": "object", "required": ["mood", "number"], "additionalProperties": false,
        "properties": {"mood": {"enum": ["good", "bad"]}, "number": {"type": "integer", "minimum": 1, "maximum": 9}}});
    // The engine's messages know no schema: an answer is checked by whoever asked.
    for name in ["local", "responses", "compatible"] {
        let mut request =
            with_options(question(name, "How are you?"), json!({"max_tokens": 200, "temperature": 1}));
        request.schema = Some(Arc::new(schema.clone()));
        let answer = ask(&providers, request).await.unwrap();
        let json: Value =
            serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{name}: {error}: {answer:?}"));
        assert!(json["mood"] == "good" || json["mood"] == "bad", "{name}: {json}");
        assert!((1..=9).contains(&json["number"].as_i64().unwrap()), "{name}: {json}");
    }
}

#[tokio::test]
async fn a_prompt_over_the_context_is_a_fault_of_the_workflow() {
    let (_folder, _engine, providers) = engine();
    for name in ["local", "anthropic"] {
        let failure = ask(&providers, question(name, &"word ".repeat(20_000))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Validation, "{name}: {failure}");
        assert!(failure.message.contains("context"), "{name}: {failure}");
    }
}

#[tokio::test]
async fn whoever_stops_waiting_frees_the_engine() {
    let (_folder, engine, providers) = engine();
    let request =
        with_options(question("local", "Tell a long story."), json!({"max_tokens": -1, "ignore_eos": true}));
    let waited = tokio::time::timeout(Duration::from_millis(500), ask(&providers, request)).await;
    assert!(waited.is_err(), "it ended by itself: {waited:?}");
    wait_for_async("the slot to be free", Duration::from_secs(10), || async {
        let slots = engine.get("/slots").expect("it lives").json();
        slots.as_array().unwrap().iter().all(|slot| slot["is_processing"] == false)
    })
    .await;
}
