//! `/v2` over real HTTP against a real daemon: what its description promises, and what it refuses.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use orch_api::{ENDPOINTS, Verb, paths};
use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::sse::EventStream;
use testkit::http::{self, Reply};
use testkit::wait_for_value;

/// Asks as an administrator.
fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Reply {
    let key = format!("Bearer {}", daemon.token);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&daemon.address, method, path, &headers, body.as_bytes()).unwrap()
}

fn get(daemon: &Daemon, path: &str) -> Reply {
    ask(daemon, "GET", path, &Value::Null)
}

/// A refusal has the shape of the contract; gives its code.
#[track_caller]
fn refusal(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    let body = reply.json();
    for field in ["code", "message", "retriable", "retry_after_ms", "policy_label", "node_id", "pool_id"] {
        assert!(body.get(field).is_some(), "{field} is missing in {body}");
    }
    if body["retriable"] == false {
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{body}");
    }
    body["code"].as_str().unwrap().to_owned()
}

/// Waits for the end of an operation that was accepted.
#[track_caller]
fn ended(daemon: &Daemon, accepted: &Reply) -> Value {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    wait_for_value("the end of the operation", SOON, || {
        let looked = get(daemon, &format!("/v2/operations/{id}?wait_ms=5000")).json();
        ["done", "failed"].contains(&looked["state"].as_str()?).then_some(looked)
    })
}

fn config_file(home: &Home, name: &str) -> PathBuf {
    home.path().join("instances").join(name).join("config.json")
}

#[test]
fn everything_that_is_described_is_there_and_takes_only_its_own_methods() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    let described = get(&daemon, paths::OPENAPI);
    assert_eq!(described.header("content-type"), Some("application/json"));
    assert_eq!(described.json(), orch_api::openapi());
    for endpoint in ENDPOINTS {
        let path = endpoint.path.replace("{name}", "nobody").replace("{id}", "nothing");
        // Neither a body nor an instance that there is: what matters is that somebody answers at all.
        let reply = ask(&daemon, endpoint.verb.label(), &path, &Value::Null);
        assert_ne!(reply.status, 405, "{} {path}", endpoint.verb.label());
        assert!(!reply.text().contains("there is no /v2"), "{path}: {}", reply.text());
        if endpoint.verb != Verb::Get {
            let key = [("content-type", "application/json")];
            let stranger = http::request(&daemon.address, endpoint.verb.label(), &path, &key, b"{}").unwrap();
            assert_eq!(refusal_code(&stranger), (401, "UNAUTHORIZED".to_owned()), "{path}");
        }
    }
    assert_eq!(refusal(&get(&daemon, "/v2/nothing"), 404), "NOT_FOUND");
    assert_eq!(refusal(&ask(&daemon, "PUT", "/v2/instances", &json!({})), 400), "INVALID_PARAMS");
}

fn refusal_code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_instance_lives_its_whole_life_over_http() {
    let home = Home::fake();
    let daemon = home.start_daemon();
    let document = json!({"name": "chat", "model": {"path": home.model(), "context_size": 4096}});
    let created = ask(&daemon, "POST", "/v2/instances", &document);
    assert_eq!((created.status, created.json()["name"].clone()), (201, json!("chat")), "{}", created.text());
    assert_eq!(refusal(&ask(&daemon, "POST", "/v2/instances", &document), 409), "CONFLICT");

    assert_eq!(
        ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/start", &Value::Null))["error"],
        Value::Null
    );
    let again = ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/start", &json!({})));
    assert_eq!((&again["state"], &again["already"]["exit_code"]), (&json!("done"), &json!(21)), "{again}");
    let strict = json!({"expect_change": true});
    let refused = ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/start", &strict));
    assert_eq!((&refused["state"], &refused["error"]["exit_code"]), (&json!("failed"), &json!(21)));

    let patch = json!({"aliases": ["nickname"], "tags": ["b"]});
    let changed = ask(&daemon, "PATCH", "/v2/instances/chat", &patch).json();
    assert_eq!(
        (&changed["fields"], &changed["restart_needed"]),
        (&json!(["aliases", "tags"]), &json!(false))
    );
    // It is in effect when the answer is there.
    let models = get(&daemon, "/v1/models").json();
    assert!(models["data"].as_array().unwrap().iter().any(|model| model["id"] == "nickname"), "{models}");
    let patch = json!({"model": {"context_size": 2048}});
    assert_eq!(ask(&daemon, "PATCH", "/v2/instances/chat", &patch).json()["restart_needed"], true);
    assert_eq!(get(&daemon, "/v2/instances").json()[0]["restart_needed"], true);
    assert_eq!(
        ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/restart", &json!({})))["state"],
        "done"
    );
    assert_eq!(get(&daemon, "/v2/instances/chat").json()["config"]["model"]["context_size"], 2048);

    assert_eq!(
        ended(&daemon, &ask(&daemon, "DELETE", "/v2/instances/chat", &Value::Null))["error"]["exit_code"],
        21
    );
    assert_eq!(
        ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/stop", &json!({})))["error"],
        Value::Null
    );
    let again = ended(&daemon, &ask(&daemon, "POST", "/v2/instances/chat/stop", &json!({})));
    assert_eq!(again["already"]["exit_code"], 20, "{again}");
    assert_eq!(ended(&daemon, &ask(&daemon, "DELETE", "/v2/instances/chat", &Value::Null))["state"], "done");
    assert_eq!(refusal(&get(&daemon, "/v2/instances/chat"), 404), "NOT_FOUND");
    assert!(!config_file(&home, "chat").exists());
}

#[test]
fn bad_input_is_refused_and_leaves_every_config_as_it_was() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let port = home.instance("b", &json!({}));
    let daemon = home.start_daemon();
    let before = std::fs::read(config_file(&home, "a")).unwrap();
    for patch in [
        json!({"model": {"context_size": "many"}}),
        json!({"model": {"context_size": "2048"}}),
        json!({"model": null}),
        json!({"colour": "red"}),
        json!({"name": "c"}),
        json!({"server": {"port": port}}),
        json!({"server": {"port": 70_000}}),
        json!([1, 2]),
        json!("text"),
    ] {
        let reply = ask(&daemon, "PATCH", "/v2/instances/a", &patch);
        assert_eq!(refusal(&reply, 400), "INVALID_PARAMS", "{patch}");
    }
    for (method, path, body, status) in [
        ("PATCH", "/v2/instances/nobody", json!({"tags": ["x"]}), 404),
        ("POST", "/v2/instances", json!({"name": "c"}), 400),
        ("POST", "/v2/instances", json!({"name": "c d", "model": {"path": "m"}}), 400),
        (
            "POST",
            "/v2/instances",
            json!({"name": "c", "model": {"path": "m"}, "server": {"port": port}}),
            400,
        ),
        ("POST", "/v2/instances/a/start", json!({"colour": "red"}), 400),
        ("POST", "/v2/instances/a/stop", json!({"drain_ms": -1}), 400),
        ("POST", "/v2/instances/nobody/start", json!({}), 404),
        ("DELETE", "/v2/instances/nobody", Value::Null, 404),
        ("DELETE", "/v2/instances/a?force=perhaps", Value::Null, 400),
        ("GET", "/v2/operations/1", Value::Null, 400),
        ("GET", "/v2/operations/00000000-0000-7000-8000-000000000000", Value::Null, 404),
        ("GET", "/v2/events?limit=many", Value::Null, 400),
        ("GET", "/v2/events?level=loud", Value::Null, 400),
        ("GET", "/v2/events?colour=red", Value::Null, 400),
        ("GET", "/v2/events?follow=perhaps", Value::Null, 400),
        ("GET", "/v2/instances/a/logs?stream=stdall", Value::Null, 400),
        ("GET", "/v2/instances/a/logs?since=yesterday", Value::Null, 400),
        ("GET", "/v2/instances/nobody/logs", Value::Null, 404),
    ] {
        let reply = ask(&daemon, method, path, &body);
        let code = refusal(&reply, status);
        assert_eq!(code, if status == 404 { "NOT_FOUND" } else { "INVALID_PARAMS" }, "{method} {path}");
    }
    let large = json!({"tags": ["x".repeat(3_000_000)]});
    assert_eq!(refusal(&ask(&daemon, "PATCH", "/v2/instances/a", &large), 413), "TOO_LARGE");
    let key = format!("Bearer {}", daemon.token);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let cut = http::request(&daemon.address, "PATCH", "/v2/instances/a", &headers, b"{\"tags\": [").unwrap();
    assert_eq!(refusal(&cut, 400), "INVALID_PARAMS");
    assert_eq!(std::fs::read(config_file(&home, "a")).unwrap(), before);
    assert!(!config_file(&home, "c").exists());
    assert_eq!(get(&daemon, "/v2/instances").json().as_array().unwrap().len(), 2);
}

#[test]
fn events_are_followed_and_a_follower_that_comes_back_misses_none() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    let stream = EventStream::open(&daemon.address, "/v2/events?follow&limit=1&instance=a", &[]);
    home.ok(&["up", "a"]);
    let started = stream.wait_for("the start", |event| event.data["event_type"] == "instance_started");
    assert_eq!(started.name, "event");
    drop(stream);
    home.ok(&["down", "a"]);
    let id = started.id.unwrap();
    let back =
        EventStream::open(&daemon.address, "/v2/events?follow&instance=a", &[("last-event-id", id.as_str())]);
    back.wait_for("the stop", |event| event.data["event_type"] == "instance_stopped");
    let first: i64 = back.events()[0].id.clone().unwrap().parse().unwrap();
    assert!(first > id.parse().unwrap(), "{:?}", back.events());
    // The daemon does not wait for somebody who only listens.
    home.ok(&["daemon", "stop"]);
    assert!(back.finish().iter().all(|event| event.data["instance"] == "a"));
}

#[test]
fn logs_are_read_and_followed_across_a_return() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_LOG_EVERY_MS": "50"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let tail = get(&daemon, "/v2/instances/a/logs?tail=3&stream=stderr").json();
    assert_eq!(tail.as_array().unwrap().len(), 3, "{tail}");
    assert_eq!(tail[0]["stream"], "stderr");

    let path = "/v2/instances/a/logs?follow&tail=0&stream=stderr";
    let stream = EventStream::open(&daemon.address, path, &[]);
    let mark = stream.wait_for("a place to come back to", |event| event.id.is_some());
    drop(stream);
    let id = mark.id.unwrap();
    let back = EventStream::open(&daemon.address, path, &[("last-event-id", id.as_str())]);
    back.wait_for("more lines", |event| event.id.is_some());
    let all = get(&daemon, "/v2/instances/a/logs?tail=10000&stream=stderr").json();
    let all: Vec<&Value> = all.as_array().unwrap().iter().map(|line| &line["text"]).collect();
    let seen: Vec<Value> = back.events().iter().map(|event| event.data["text"].clone()).collect();
    let at = all.iter().position(|line| **line == mark.data["text"]).unwrap();
    assert_eq!(all[at + 1], &seen[0], "the line after the one that was seen last");
    let bad = [("last-event-id", "nonsense")];
    let refused = http::request(&daemon.address, "GET", path, &bad, b"").unwrap();
    assert_eq!(refusal(&refused, 400), "INVALID_PARAMS");
}
