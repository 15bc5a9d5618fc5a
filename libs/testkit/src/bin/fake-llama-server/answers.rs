//! Answers other than generations.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::connection::{Answer, Request};
use crate::engine::Engine;
use crate::faults::Faults;
use crate::generation::count_prompt;

/// An error in the real one's shape.
pub(crate) fn error(status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"message": message, "type": kind, "code": status}}))
}

pub(crate) fn health(faults: &Faults) -> Answer {
    let status =
        faults.number("FAKE_HEALTH_STATUS").and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    let mut answer = Answer::json(status, &json!({"status": if status == 200 { "ok" } else { "error" }}));
    if let Some(body) = faults.text("FAKE_HEALTH_BODY") {
        answer.body = body.as_bytes().to_vec();
    }
    answer
}

pub(crate) fn props(engine: &Engine) -> Answer {
    let options = &engine.options;
    let slots = options.slots as u64;
    let body = json!({
        "default_generation_settings": {
            "params": {"seed": u32::MAX, "temperature": 0.8, "n_predict": -1, "stream": false},
            "n_ctx": options.context / slots,
        },
        "total_slots": engine.faults().number("FAKE_TOTAL_SLOTS").unwrap_or(slots),
        "model_alias": options.alias,
        "model_ftype": "all F32",
        "model_path": options.model,
        "modalities": {"vision": false, "video": false, "audio": false},
        "endpoint_slots": options.slots_endpoint,
        "endpoint_props": false,
        "endpoint_metrics": options.metrics,
        "chat_template": "",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "build_info": "b11434-fake",
        "is_sleeping": false,
    });
    Answer::json(200, &body)
}

pub(crate) fn slots(engine: &Engine) -> Answer {
    if !engine.options.slots_endpoint {
        let message = "This server does not support slots endpoint. Start it with `--slots`";
        return error(501, "not_supported_error", message);
    }
    let context = engine.options.context / engine.options.slots as u64;
    let one = |(id, busy)| json!({"id": id, "n_ctx": context, "speculative": false, "is_processing": busy});
    Answer::json(200, &engine.slots().into_iter().enumerate().map(one).collect())
}

pub(crate) fn metrics(engine: &Engine) -> Answer {
    if !engine.options.metrics {
        let message = "This server does not support metrics endpoint. Start it with `--metrics`";
        return error(501, "not_supported_error", message);
    }
    let busy = engine.slots().iter().filter(|busy| **busy).count();
    let deferred = engine.in_flight().saturating_sub(busy);
    let rows = [
        ("prompt_tokens_total", "counter", engine.counters.prompt_tokens.load(Ordering::Relaxed)),
        ("tokens_predicted_total", "counter", engine.counters.tokens.load(Ordering::Relaxed)),
        ("requests_processing", "gauge", busy as u64),
        ("requests_deferred", "gauge", deferred as u64),
    ];
    let mut text = String::new();
    for (name, kind, value) in rows {
        let _ = writeln!(text, "# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}");
    }
    Answer::text("text/plain; version=0.0.4", text)
}

pub(crate) fn tokens(request: &Request) -> Answer {
    let content = body(request)["content"].as_str().unwrap_or_default().to_owned();
    let tokens: Vec<usize> = content.split_whitespace().map(str::len).collect();
    Answer::json(200, &json!({"tokens": tokens}))
}

pub(crate) fn input_tokens(request: &Request) -> Answer {
    Answer::json(200, &json!({"input_tokens": count_prompt(&body(request))}))
}

pub(crate) fn embeddings(engine: &Engine, request: &Request) -> Answer {
    if !engine.options.embeddings {
        let message = "This server does not support embeddings. Start it with `--embeddings`";
        return error(501, "not_supported_error", message);
    }
    let asked = body(request);
    let inputs = match &asked["input"] {
        Value::Array(inputs) => inputs.len(),
        _ => 1,
    };
    let one = |index| json!({"object": "embedding", "index": index, "embedding": [0.5, -0.5, 0.5, -0.5]});
    let usage = json!({"prompt_tokens": count_prompt(&asked), "total_tokens": count_prompt(&asked)});
    let data: Vec<Value> = (0..inputs).map(one).collect();
    Answer::json(200, &json!({"model": engine.options.alias, "object": "list", "usage": usage, "data": data}))
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or(Value::Null)
}
