//! `/fake/…`: what a test may ask and change, even while the engine loads or hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use crate::answers::error;
use crate::connection::{Answer, Request};
use crate::engine::Engine;
use crate::lifecycle::start_timed_faults;

/// Bodies are remembered up to this many bytes.
const REMEMBERED_BODY: usize = 64 * 1024;

pub(crate) fn answer(engine: &Arc<Engine>, request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/fake/stats") => stats(engine),
        ("GET", "/fake/requests") => Answer::json(200, &Value::Array(engine.remembered())),
        ("GET", "/fake/process") => process(engine),
        ("POST", "/fake/faults") => change_faults(engine, request),
        _ => error(404, "not_found_error", "stats, requests, process or faults"),
    }
}

/// A request as `/fake/requests` tells it.
pub(crate) fn describe(request: &Request) -> Value {
    let body = &request.body[..request.body.len().min(REMEMBERED_BODY)];
    let headers: Map<String, Value> =
        request.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "method": request.method, "path": request.path, "query": request.query, "headers": headers,
        "body": String::from_utf8_lossy(body), "body_length": request.body.len(),
    })
}

/// The status that the next generation shall fail with, if one.
pub(crate) fn take_status(engine: &Engine) -> Option<u16> {
    let mut faults = engine.faults();
    let status = u16::try_from(faults.number("FAKE_STATUS")?).ok()?;
    match faults.number("FAKE_STATUS_TIMES") {
        None => Some(status),
        Some(0) => None,
        Some(left) => {
            faults.set("FAKE_STATUS_TIMES", &(left - 1).to_string()).ok()?;
            engine.set_faults(faults);
            Some(status)
        }
    }
}

fn stats(engine: &Engine) -> Answer {
    let counters = &engine.counters;
    let busy = engine.slots().iter().filter(|busy| **busy).count();
    let body = json!({
        "connections": counters.connections.load(Ordering::Relaxed),
        "requests": counters.requests.load(Ordering::Relaxed),
        "cancelled": counters.cancelled.load(Ordering::Relaxed),
        "tokens": counters.tokens.load(Ordering::Relaxed),
        "in_flight": engine.in_flight(),
        "slots_busy": busy,
    });
    Answer::json(200, &body)
}

fn process(engine: &Engine) -> Answer {
    let environment: Map<String, Value> =
        std::env::vars().map(|(name, value)| (name, value.into())).collect();
    let body = json!({
        "pid": std::process::id(),
        "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
        "environment": environment,
        "working_folder": std::env::current_dir().ok(),
        "children": engine.children,
    });
    Answer::json(200, &body)
}

/// Sets the knobs of a JSON object; an empty text takes one back. All or none.
fn change_faults(engine: &Arc<Engine>, request: &Request) -> Answer {
    let Ok(changes) = serde_json::from_slice::<Map<String, Value>>(&request.body) else {
        return error(400, "invalid_request_error", "a JSON object of knobs, please");
    };
    let mut faults = engine.faults();
    for (name, value) in changes {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Err(message) = faults.set(&name, &value) {
            return error(400, "invalid_request_error", &message);
        }
    }
    engine.set_faults(faults);
    start_timed_faults(engine);
    Answer::json(200, &json!({}))
}
