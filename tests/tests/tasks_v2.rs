//! Native tasks: submitted, watched, resumed, cancelled; each ends in exactly one way.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::sse::{Event, EventStream};
use testkit::http::{self, Reply};
use testkit::{wait_for, wait_for_value};

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Reply {
    let key = format!("Bearer {}", daemon.token);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&daemon.address, method, path, &headers, body.as_bytes()).unwrap()
}

/// Submits a task that is taken.
#[track_caller]
fn submit(daemon: &Daemon, task: &Value) -> Value {
    let reply = ask(daemon, "POST", "/v2/tasks", task);
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()
}

fn events(daemon: &Daemon, task: &Value) -> EventStream {
    let key = format!("Bearer {}", daemon.token);
    EventStream::open(&daemon.address, task["events_url"].as_str().unwrap(), &[("authorization", &key)])
}

fn path_of(task: &Value) -> String {
    format!("/v2/tasks/{}", task["task_id"].as_str().unwrap())
}

fn named<'e>(events: &'e [Event], name: &str) -> Vec<&'e Event> {
    events.iter().filter(|event| event.name == name).collect()
}

/// `queued` first, one of `end` and `error` last, and nothing of either in between.
#[track_caller]
fn assert_orderly(events: &[Event]) {
    assert_eq!(events[0].name, "queued", "{events:?}");
    let last = events.iter().position(|event| ["end", "error"].contains(&event.name.as_str()));
    assert_eq!(last, Some(events.len() - 1), "{events:?}");
    let numbers: Vec<Value> = named(events, "token").iter().map(|event| event.data["i"].clone()).collect();
    let wanted: Vec<Value> = (0..numbers.len()).map(|number| json!(number)).collect();
    assert_eq!(numbers, wanted);
}

/// How many slots of the only instance are busy.
fn busy(daemon: &Daemon) -> u64 {
    ask(daemon, "GET", "/v2/instances", &Value::Null).json()[0]["slots"]["busy"].as_u64().unwrap_or(0)
}

#[test]
fn a_task_of_a_real_engine_gives_its_text_and_its_numbers_and_can_be_read_again() {
    let home = Home::real();
    home.instance("chat", &json!({"aliases": ["nick"]}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let wanted = json!({"model": "nick", "prompt": "once upon a time", "max_tokens": 12, "seed": 7,
        "priority": "batch", "session_id": "s-1", "deadline_ms": 60_000, "placement": {"pin": ["chat"]}});
    let task = submit(&daemon, &wanted);
    let seen = events(&daemon, &task).finish();
    assert_orderly(&seen);
    assert_eq!(named(&seen, "started").len(), 1, "{seen:?}");
    let end = &seen.last().unwrap().data;
    assert!(end["tokens_out"].as_u64().unwrap() > 0 && end["decode_ms"].is_u64(), "{end}");
    let view = ask(&daemon, "GET", &path_of(&task), &Value::Null).json();
    assert_eq!((&view["state"], &view["model"]), (&json!("done"), &json!("nick")), "{view}");

    // The log counts it as the engine did, although nobody read on behind the last event.
    let logged =
        wait_for_value("the task in the log", SOON, || home.json(&["requests", "--json"]).get(0).cloned());
    let counted = (&logged["outcome"], &logged["completion_tokens"]);
    assert_eq!(counted, (&json!("done"), &end["tokens_out"]), "{logged}");

    // The same again, from the middle on.
    assert_eq!(events(&daemon, &task).finish(), seen);
    let middle = seen.len() / 2;
    let id = seen[middle].id.clone().unwrap();
    let url = task["events_url"].as_str().unwrap();
    let key = format!("Bearer {}", daemon.token);
    let headers = [("last-event-id", id.as_str()), ("authorization", &key)];
    let rest = EventStream::open(&daemon.address, url, &headers).finish();
    assert_eq!(rest, seen[middle + 1..]);

    let chat = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3});
    let seen = events(&daemon, &submit(&daemon, &chat)).finish();
    assert_orderly(&seen);
    assert_eq!(seen.last().unwrap().name, "end", "{seen:?}");
}

#[test]
fn what_cannot_be_a_task_is_refused_at_once() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    for (task, status, code) in [
        (json!({"model": "a"}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": "x", "messages": []}), 400, "INVALID_PARAMS"),
        (json!({"prompt": "x"}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": "x", "colour": "red"}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": 7}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": "x", "max_tokens": -1}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": "x", "priority": "urgent"}), 400, "INVALID_PARAMS"),
        (json!({"model": "a", "prompt": "x", "session_id": "line\nbreak"}), 400, "INVALID_PARAMS"),
        (json!({"model": "nobody", "prompt": "x"}), 404, "MODEL_NOT_FOUND"),
        (json!({"model": "a", "prompt": "x"}), 503, "MODEL_NOT_AVAILABLE"),
    ] {
        let reply = ask(&daemon, "POST", "/v2/tasks", &task);
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{task}: {}", reply.text());
    }
    let unknown = "/v2/tasks/00000000-0000-7000-8000-000000000000";
    for (method, path) in [
        ("GET", unknown.to_owned()),
        ("GET", format!("{unknown}/events")),
        ("POST", format!("{unknown}/cancel")),
    ] {
        assert_eq!(ask(&daemon, method, &path, &json!({})).status, 404, "{path}");
    }
    assert_eq!(ask(&daemon, "GET", "/v2/tasks/seven", &Value::Null).status, 400);
}

#[test]
fn a_cancelled_task_ends_with_an_error_frees_its_slot_and_may_be_cancelled_again() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_TOKENS": "100000", "FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let task = submit(&daemon, &json!({"model": "a", "prompt": "x"}));
    let stream = events(&daemon, &task);
    stream.wait_for("text", |event| event.name == "token");
    assert_eq!(busy(&daemon), 1);
    for _ in 0..2 {
        assert_eq!(ask(&daemon, "POST", &format!("{}/cancel", path_of(&task)), &json!({})).status, 204);
    }
    let seen = stream.finish();
    assert_orderly(&seen);
    assert_eq!(seen.last().unwrap().data["code"], "CANCELLED");
    wait_for("the slot to be free", SOON, || busy(&daemon) == 0);
    assert_eq!(ask(&daemon, "POST", &format!("{}/cancel", path_of(&task)), &json!({})).status, 204);
    assert_eq!(ask(&daemon, "GET", &path_of(&task), &Value::Null).json()["state"], "failed");
}

#[test]
fn a_task_goes_on_when_its_reader_hangs_up() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_TOKENS": "40", "FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let task = submit(&daemon, &json!({"model": "a", "prompt": "x"}));
    let stream = events(&daemon, &task);
    stream.wait_for("text", |event| event.name == "token");
    drop(stream);
    let done = wait_for_value("the end", SOON, || {
        let view = ask(&daemon, "GET", &path_of(&task), &Value::Null).json();
        (view["state"] != "running").then_some(view)
    });
    assert_eq!((&done["state"], &done["tokens_out"]), (&json!("done"), &json!(40)), "{done}");
    let seen = events(&daemon, &task).finish();
    assert_orderly(&seen);
    assert_eq!(named(&seen, "token").len(), 40);
}

#[test]
fn engines_that_fail_and_daemons_that_stop_end_a_task_with_an_error() {
    let home = Home::fake();
    home.instance("breaks", &json!({"env": {"FAKE_TOKENS": "50", "FAKE_CLOSE_AFTER_TOKENS": "5"}}));
    home.instance("garbles", &json!({"env": {"FAKE_TOKENS": "50", "FAKE_MALFORMED_AFTER_TOKENS": "5"}}));
    home.instance("goes-on", &json!({"env": {"FAKE_TOKENS": "100000", "FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let seen = events(&daemon, &submit(&daemon, &json!({"model": "breaks", "prompt": "x"}))).finish();
    assert_orderly(&seen);
    let last = seen.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["code"]), ("error", &json!("WORKER_RESET")), "{seen:?}");
    let seen = events(&daemon, &submit(&daemon, &json!({"model": "garbles", "prompt": "x"}))).finish();
    assert_orderly(&seen);
    assert_eq!(seen.last().unwrap().name, "error", "{seen:?}");

    let stream = events(&daemon, &submit(&daemon, &json!({"model": "goes-on", "prompt": "x"})));
    stream.wait_for("text", |event| event.name == "token");
    home.ok(&["daemon", "stop"]);
    let seen = stream.finish();
    assert_orderly(&seen);
    let last = seen.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["retriable"]), ("error", &json!(true)), "{last:?}");
}

/// Makes a key and gives its secret.
fn key(home: &Home, name: &str, scope: &str) -> String {
    let created = home.json(&["token", "create", "--json", "--name", name, "--scope", scope]);
    created["token"].as_str().unwrap().to_owned()
}

fn ask_with(daemon: &Daemon, key: &str, method: &str, path: &str, body: &str) -> Reply {
    let key = format!("Bearer {key}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    http::request(&daemon.address, method, path, &headers, body.as_bytes()).unwrap()
}

#[test]
fn a_task_is_the_business_of_the_key_that_made_it_and_of_administrators() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_TOKENS": "100000", "FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let (own, other) = (key(&home, "own", "infer"), key(&home, "other", "infer"));
    let admin = key(&home, "admin", "admin");
    let submitted = ask_with(&daemon, &own, "POST", "/v2/tasks", r#"{"model":"a","prompt":"x"}"#);
    assert_eq!(submitted.status, 202, "{}", submitted.text());
    let task = submitted.json();
    let path = path_of(&task);
    for (method, path) in
        [("GET", path.clone()), ("GET", format!("{path}/events")), ("POST", format!("{path}/cancel"))]
    {
        let reply = ask_with(&daemon, &other, method, &path, "");
        assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("NOT_FOUND")), "{method} {path}");
    }
    for key in [&own, &admin, &daemon.token] {
        let seen = ask_with(&daemon, key, "GET", &path, "");
        assert_eq!((seen.status, &seen.json()["state"]), (200, &json!("running")), "{}", seen.text());
    }
    let bearer = format!("Bearer {own}");
    let url = task["events_url"].as_str().unwrap();
    let stream = EventStream::open(&daemon.address, url, &[("authorization", &bearer)]);
    assert_eq!(ask_with(&daemon, &own, "POST", &format!("{path}/cancel"), "").status, 204);
    let seen = stream.finish();
    assert_orderly(&seen);
    assert_eq!(seen.last().unwrap().data["code"], "CANCELLED");
    // A key is known by its id: one that is made later under the same name is somebody else.
    home.ok(&["token", "revoke", "own"]);
    let again = key(&home, "own", "infer");
    assert_eq!(ask_with(&daemon, &again, "GET", &path, "").status, 404);
    assert_eq!(ask_with(&daemon, &admin, "POST", &format!("{path}/cancel"), "").status, 204);
}
