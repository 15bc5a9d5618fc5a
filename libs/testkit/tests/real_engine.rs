//! The tiny model in a real `llama-server`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use testkit::{RunningEngine, TempHome, TinyModel, http, write_tiny_model};

fn chat(engine: &RunningEngine) -> String {
    let asked: Value = json!({
        "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 24
    });
    let reply = http::post_json(&engine.address(), "/v1/chat/completions", &asked).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["usage"]["completion_tokens"], 24);
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn the_tiny_model_chats_in_printable_text_and_always_the_same() {
    let home = TempHome::new();
    let engine = RunningEngine::real(home.scratch(), &["--parallel", "2", "--ctx-size", "1024"]);
    let first = chat(&engine);
    assert!(first.len() >= 24 && first.chars().all(|letter| letter.is_ascii_graphic()), "{first:?}");
    assert_eq!(chat(&engine), first);
    let again = RunningEngine::real(home.scratch(), &[]);
    assert_eq!(chat(&again), first);
    assert_eq!(engine.get("/props").unwrap().json()["total_slots"], 2);
}

#[test]
fn a_model_with_byte_tokens_writes_broken_utf8_as_real_models_do() {
    let home = TempHome::new();
    let recipe = TinyModel { printable: false, ..TinyModel::default() };
    write_tiny_model(&home.scratch().join("tiny.gguf"), &recipe).unwrap();
    let engine = RunningEngine::real(home.scratch(), &[]);
    assert!(!chat(&engine).is_ascii());
}
