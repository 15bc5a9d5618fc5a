//! Good answers, in every protocol.

use std::sync::Arc;

use serde_json::{Value, json};
use testkit::provider::{FakeProvider, Rule, Script, ToolCall};
use workflow::{AskModel as _, FinishReason};

use crate::support::{ALL, Heard, KEY, ask, last_body, providers, question, with_options};

#[tokio::test]
async fn every_protocol_streams_text_and_tells_tokens_and_why_it_ended() {
    let fake = FakeProvider::start(Script::default().answer("greet", "Grüße, 世界 and 🌍!"));
    let providers = providers(&fake.url());
    for name in ALL {
        let heard = Arc::new(Heard::default());
        let answer = providers.ask(question(name, "greet the world"), heard.clone()).await.unwrap();
        assert_eq!(answer.text, "Grüße, 世界 and 🌍!", "{name}");
        assert_eq!(heard.pieces().concat(), answer.text, "{name}");
        assert!(heard.pieces().len() > 1, "{name}: {:?}", heard.pieces());
        assert_eq!(answer.finish, FinishReason::Stop, "{name}");
        assert_eq!((answer.usage.prompt, answer.usage.completion), (5, 4), "{name}");
        assert!(answer.first_token.is_some() && answer.tool_calls.is_none(), "{name}");
    }
}

#[tokio::test]
async fn characters_that_are_cut_between_packets_are_whole_again() {
    let script = Script { split_bytes: 3, ..Script::default() }.answer("", "é世🌍");
    let fake = FakeProvider::start(script);
    let providers = providers(&fake.url());
    for name in ALL {
        assert_eq!(ask(&providers, question(name, "cut")).await.unwrap().text, "é世🌍", "{name}");
    }
}

#[tokio::test]
async fn what_the_model_thinks_is_not_part_of_its_answer() {
    let rule = Rule { text: Some("yes".into()), thinking: Some("hm …".into()), ..Rule::default() };
    let fake = FakeProvider::start(Script::default().rule(rule));
    let providers = providers(&fake.url());
    for name in ALL {
        let answer = ask(&providers, question(name, "think")).await.unwrap();
        assert_eq!(answer.text, "yes", "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_by_the_limit_says_so() {
    let fake = FakeProvider::start(Script::default().answer("", "one two three four five"));
    let providers = providers(&fake.url());
    for name in ALL {
        let request = with_options(question(name, "count"), json!({"max_tokens": 2}));
        let answer = ask(&providers, request).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.finish), ("one two ", FinishReason::Length), "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_would_not_answer_is_told_apart() {
    let rule = Rule { text: Some(String::new()), finish: Some("content_filter".into()), ..Rule::default() };
    let fake = FakeProvider::start(Script::default().rule(rule));
    let providers = providers(&fake.url());
    for name in ["local", "openai", "responses", "anthropic", "mlx"] {
        let answer = ask(&providers, question(name, "something bad")).await.unwrap();
        assert_eq!(answer.finish, FinishReason::Refused, "{name}");
    }
}

#[tokio::test]
async fn calls_of_tools_come_in_one_shape() {
    let calls = vec![
        ToolCall { name: "add".into(), arguments: json!({"a": 1, "b": "ü"}) },
        ToolCall { name: "sub".into(), arguments: json!({}) },
    ];
    let rule = Rule { text: Some(String::new()), tool_calls: calls, ..Rule::default() };
    let fake = FakeProvider::start(Script::default().rule(rule));
    let providers = providers(&fake.url());
    for name in ALL {
        let function = json!({"name": "add", "description": "adds", "parameters": {"type": "object"}});
        let mut request = question(name, "calculate");
        request.tools = Some(json!([{"type": "function", "function": function}]));
        let answer = ask(&providers, request).await.unwrap();
        assert_eq!(answer.finish, FinishReason::ToolCalls, "{name}");
        let calls = answer.tool_calls.unwrap();
        assert_eq!(calls.as_array().map(Vec::len), Some(2), "{name}: {calls}");
        let arguments: Value =
            serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!((&calls[0]["function"]["name"], &arguments), (&json!("add"), &json!({"a": 1, "b": "ü"})));
        assert!(calls[1]["id"].is_string() && calls[1]["type"] == "function", "{name}: {calls}");
        let sent = last_body(&fake)["tools"].to_string();
        assert!(sent.contains("\"add\""), "{name}: {sent}");
    }
}

#[tokio::test]
async fn an_answer_fits_its_schema_by_each_providers_own_means() {
    let fake = FakeProvider::start(Script::default());
    let providers = providers(&fake.url());
    let schema = json!({"type": "object", "required": ["n"], "additionalProperties": false,
        "properties": {"n": {"type": "integer"}}});
    for name in ALL {
        let mut request = question(name, "how many?");
        request.schema = Some(Arc::new(schema.clone()));
        let heard = Arc::new(Heard::default());
        let answer = providers.ask(request, heard.clone()).await.unwrap();
        let json: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!((json, answer.finish), (json!({"n": 1}), FinishReason::Stop), "{name}");
        assert!(answer.tool_calls.is_none(), "{name}: the call is the answer");
        assert_eq!(heard.pieces().concat(), answer.text, "{name}");
        let body = last_body(&fake);
        let told = match name {
            "anthropic" => &body["tools"][0]["input_schema"],
            "ollama" => &body["format"],
            "responses" => &body["text"]["format"]["schema"],
            _ => &body["response_format"]["json_schema"]["schema"],
        };
        assert_eq!(*told, schema, "{name}: {body}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_object_comes_out_of_anthropics_tool_as_it_is() {
    let fake = FakeProvider::start(Script::default());
    let providers = providers(&fake.url());
    let mut request = question("anthropic", "list");
    request.schema = Some(Arc::new(json!({"type": "array", "items": {"type": "integer"}})));
    let heard = Arc::new(Heard::default());
    let answer = providers.ask(request, heard.clone()).await.unwrap();
    assert_eq!((answer.text.as_str(), heard.pieces().concat().as_str()), ("[1]", "[1]"));
}

#[tokio::test]
async fn options_reach_each_provider_in_its_own_words() {
    let fake = FakeProvider::start(Script::default());
    let providers = providers(&fake.url());
    let options = json!({"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": "END"});
    for name in ALL {
        ask(&providers, with_options(question(name, "options"), options.clone())).await.unwrap();
        let body = last_body(&fake);
        let (place, limit, stop) = match name {
            "anthropic" => (&body, "max_tokens", json!(["END"])),
            "ollama" => (&body["options"], "num_predict", json!(["END"])),
            "responses" => (&body, "max_output_tokens", json!("END")),
            _ => (&body, "max_tokens", json!("END")),
        };
        assert_eq!((&place["temperature"], &place["top_p"]), (&json!(0.5), &json!(0.9)), "{name}: {body}");
        assert_eq!(place[limit], 7, "{name}: {body}");
        let key = if name == "anthropic" { "stop_sequences" } else { "stop" };
        assert_eq!(place[key], stop, "{name}: {body}");
        assert_eq!((&body["model"], &body["stream"]), (&json!("fake"), &json!(true)), "{name}");
    }
    let own = json!({"seed": 3, "num_ctx": 4096, "think": false});
    ask(&providers, with_options(question("ollama", "own"), own)).await.unwrap();
    let body = last_body(&fake);
    assert_eq!((&body["options"]["seed"], &body["options"]["num_ctx"]), (&json!(3), &json!(4096)), "{body}");
    assert_eq!(body["think"], false, "{body}");
}

#[tokio::test]
async fn the_option_api_chooses_responses_and_no_option_replaces_what_is_asked() {
    let fake = FakeProvider::start(Script::default());
    let providers = providers(&fake.url());
    let sly =
        json!({"api": "responses", "model": "other", "stream": false, "messages": [], "input": "other"});
    let answer = ask(&providers, with_options(question("openai", "hello"), sly)).await.unwrap();
    assert!(answer.text.ends_with("hello"), "{}", answer.text);
    let seen = fake.requests().pop().unwrap();
    assert_eq!((seen.path.as_str(), &seen.body["model"]), ("/v1/responses", &json!("fake")));
    assert_eq!(seen.body.get("api"), None);
    let wrong = with_options(question("openai", "hello"), json!({"api": "soap"}));
    let failure = ask(&providers, wrong).await.unwrap_err();
    assert_eq!(failure.kind, workflow_spec::FailureKind::Validation);
}

#[tokio::test]
async fn keys_are_shown_in_each_protocols_header() {
    let fake = FakeProvider::start(Script { key: Some(KEY.to_owned()), ..Script::default() });
    let providers = providers(&fake.url());
    for name in ALL {
        ask(&providers, question(name, "may I?")).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let fake = FakeProvider::start(Script::default());
    let providers = providers(&fake.url());
    for turn in 0..5 {
        for name in ALL {
            ask(&providers, question(name, &format!("turn {turn}"))).await.unwrap();
        }
    }
    let stats = fake.stats();
    assert_eq!((stats.requests, stats.connections), (30, 1), "{stats:?}");
}

#[tokio::test]
async fn without_a_model_the_first_that_the_provider_lists_is_taken() {
    let fake = FakeProvider::start(Script { models: vec!["one".into(), "two".into()], ..Script::default() });
    let providers = providers(&fake.url());
    for name in ALL {
        let facts = providers.facts(name, None).await.unwrap();
        assert_eq!(facts.model, "one", "{name}");
        let kind = if name == "responses" { "openai" } else { name };
        assert_eq!(facts.provider_kind, kind);
        assert_eq!(providers.facts(name, Some("mine")).await.unwrap().model, "mine", "{name}");
    }
    fake.set_script(Script { models: Vec::new(), ..Script::default() });
    let failure = providers.facts("local", None).await.unwrap_err();
    assert_eq!(failure.kind, workflow_spec::FailureKind::Validation);
}
