//! The gateway, asked from outside.

use serde_json::json;
use testkit::http;

use super::{Named, Scene};

pub(super) const SCENARIOS: &[Named] = &[("a chat goes through the gateway, whole and as a stream", chat)];

fn ask(scene: &Scene<'_>, stream: bool) -> http::Reply {
    let request = json!({
        "model": "a",
        "messages": [{"role": "user", "content": "Grüße"}],
        "max_tokens": 4,
        "stream": stream,
    });
    http::post_json(scene.address(), "/v1/chat/completions", &request).expect("the gateway answers")
}

fn chat(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["up", "a"]);
    let whole = ask(scene, false);
    assert_eq!(whole.status, 200, "{}", whole.text());
    assert!(whole.json()["choices"][0]["message"]["content"].is_string(), "{}", whole.text());
    let stream = ask(scene, true).text();
    assert!(stream.contains("data: ") && stream.trim_end().ends_with("data: [DONE]"), "{stream}");
    scene.ok(&["down", "a"]);
    assert_ne!(ask(scene, false).status, 200, "when down returns, nothing is routed there");
    scene.ok(&["daemon", "stop"]);
}
