//! Keys from end to end: made, required, limited, rotated, revoked.

#![cfg(target_os = "linux")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::processes::kill_hard;
use support::raw_http::{Head, send};
use testkit::http;
use testkit::{run_python, wait_for, wait_for_value};

const CHAT: &str = r#"{"model":"a","messages":[{"role":"user","content":"Say something."}],"max_tokens":4}"#;
const PATH: &str = "/v1/chat/completions";

/// A home with one real engine behind a daemon.
fn running() -> (Home, Daemon) {
    let home = Home::real();
    home.instance("a", &json!({"aliases": ["nick"]}));
    home.instance("b", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a", "b"]);
    (home, daemon)
}

/// Makes a key and gives its secret.
fn create(home: &Home, name: &str, limits: &[&str]) -> String {
    let created = home.json(&[&["token", "create", "--json", "--name", name], limits].concat());
    created["token"].as_str().expect("the key is shown").to_owned()
}

fn ask(daemon: &Daemon, method: &str, path: &str, key: Option<&str>, body: &str) -> Head {
    let bearer = key.map(|key| format!("Bearer {key}"));
    let mut headers = vec![("Host", daemon.address.as_str()), ("Content-Type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    send(&daemon.address, method, path, &headers, body)
}

/// Whether the door opens, whatever is behind it.
fn lets_in(daemon: &Daemon, key: Option<&str>) -> bool {
    match ask(daemon, "GET", "/v1/models", key, "").status {
        200 | 503 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

fn chat(daemon: &Daemon, key: Option<&str>) -> u16 {
    ask(daemon, "POST", PATH, key, CHAT).status
}

fn listed(home: &Home, name: &str) -> Value {
    let keys = home.json(&["token", "list", "--json"]);
    keys.as_array().expect("a list").iter().find(|key| key["name"] == name).cloned().unwrap_or(Value::Null)
}

const CLIENTS: &str = r#"
import os, openai, anthropic
base, key = os.environ["BASE"], os.environ["KEY"]
message = [{"role": "user", "content": "Say something."}]
client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0)
assert client.chat.completions.create(model="a", messages=message, max_tokens=4).choices
assert [model.id for model in client.models.list().data] == ["a", "nick"]
claude = anthropic.Anthropic(base_url=base, api_key=key, max_retries=0)
assert claude.messages.create(model="a", messages=message, max_tokens=4).content
try:
    client.chat.completions.create(model="b", messages=message, max_tokens=4)
    raise SystemExit("b was served")
except openai.PermissionDeniedError:
    pass
for wrong in ["sk-wrong", key + "0"]:
    try:
        client.with_options(api_key=wrong).models.list()
        raise SystemExit("a wrong key was served")
    except openai.AuthenticationError:
        pass
    try:
        anthropic.Anthropic(base_url=base, api_key=wrong, max_retries=0).messages.create(
            model="a", messages=message, max_tokens=4)
        raise SystemExit("a wrong key was served")
    except anthropic.AuthenticationError:
        pass
"#;

#[test]
fn from_the_first_key_on_every_request_needs_one_until_the_last_is_revoked() {
    let (home, daemon) = running();
    assert_eq!(chat(&daemon, None), 200);
    let key = create(&home, "laptop", &["--models", "a"]);
    assert_eq!((chat(&daemon, None), chat(&daemon, Some(&key))), (401, 200));
    assert_eq!(ask(&daemon, "GET", "/health", None, "").status, 200);
    assert_eq!(home.ps("a")["status"], "running", "commands of the home need no key");

    let run = run_python(CLIENTS, &[("BASE", &format!("http://{}", daemon.address)), ("KEY", &key)]);
    run.expect_exit(0);

    let other = create(&home, "other", &[]);
    home.ok(&["token", "revoke", "laptop"]);
    assert_eq!((chat(&daemon, Some(&key)), chat(&daemon, Some(&other))), (401, 200));
    home.ok(&["token", "revoke", "other"]);
    assert_eq!(chat(&daemon, None), 200, "an open home again");
}

#[test]
fn a_key_opens_what_its_scopes_say_and_sees_its_models_only() {
    let (home, daemon) = running();
    let infer = create(&home, "infer", &["--models", "a"]);
    let read = create(&home, "read", &["--scope", "read"]);
    let admin = create(&home, "admin", &["--scope", "admin"]);
    let rows = [
        ("POST", PATH, CHAT, [200, 403, 200]),
        ("GET", "/v2/instances", "", [403, 200, 200]),
        ("GET", "/v2/tokens", "", [403, 403, 200]),
        ("POST", "/v2/instances/a/start", "{}", [403, 403, 202]),
        ("GET", "/upstream/a/props", "", [403, 403, 200]),
    ];
    for (method, path, body, expected) in rows {
        let got = [&infer, &read, &admin].map(|key| ask(&daemon, method, path, Some(key), body).status);
        assert_eq!(got, expected, "{method} {path}");
    }
    assert_eq!(ask(&daemon, "POST", PATH, Some(&infer), &CHAT.replace("\"a\"", "\"nick\"")).status, 200);
    assert_eq!(ask(&daemon, "POST", PATH, Some(&infer), &CHAT.replace("\"a\"", "\"b\"")).status, 403);
    assert_eq!(ask(&daemon, "GET", "/v1/models/b", Some(&infer), "").status, 404);

    // What somebody has submitted is theirs, and the administrator's.
    let stranger = create(&home, "stranger", &[]);
    let task = r#"{"model":"a","prompt":"Say something.","max_tokens":4}"#;
    let bearer = format!("Bearer {infer}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let taken = http::request(&daemon.address, "POST", "/v2/tasks", &headers, task.as_bytes());
    let taken = taken.expect("the daemon answers").json();
    let path = format!("/v2/tasks/{}", taken["task_id"].as_str().expect("it was taken"));
    let seen = [&infer, &stranger, &read, &admin].map(|key| ask(&daemon, "GET", &path, Some(key), "").status);
    assert_eq!(seen, [200, 404, 403, 200]);
    assert_eq!(ask(&daemon, "POST", &format!("{path}/cancel"), Some(&stranger), "{}").status, 404);

    // A command elsewhere brings its key along.
    let server = format!("http://{}", daemon.address);
    let elsewhere = |key: &str, arguments: &[&str]| {
        let mut command = home.command(&[&["--server", &server], arguments].concat());
        command.env("LLAMA_ORCH_TOKEN", key);
        testkit::run(command)
    };
    elsewhere(&read, &["ps"]).expect_exit(0);
    elsewhere(&read, &["token", "list"]).expect_exit(81);
    elsewhere(&admin, &["token", "list"]).expect_exit(0);
    elsewhere("llo_wrong", &["ps"]).expect_exit(81);
    elsewhere(&admin, &["token", "revoke", "read"]).expect_exit(0);
    elsewhere(&read, &["ps"]).expect_exit(81);
}

#[test]
fn limits_are_told_and_a_budget_outlives_the_daemon_even_when_it_is_killed() {
    let (home, daemon) = running();
    let slow = create(&home, "slow", &["--rpm", "2"]);
    assert_eq!((chat(&daemon, Some(&slow)), chat(&daemon, Some(&slow))), (200, 200));
    let refused = ask(&daemon, "POST", PATH, Some(&slow), CHAT);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").expect("a wait is told").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));

    let thrifty = create(&home, "thrifty", &["--budget", "1"]);
    assert_eq!(chat(&daemon, Some(&thrifty)), 200);
    let refused = ask(&daemon, "POST", PATH, Some(&thrifty), CHAT);
    assert_eq!((refused.status, refused.header("x-should-retry")), (429, Some("false")));
    let spent = wait_for_value("the spending to be written", SOON, || {
        listed(&home, "thrifty")["spent"].as_u64().filter(|it| *it > 1)
    });

    kill_hard(daemon.pid);
    let daemon = home.start_daemon();
    assert_eq!(chat(&daemon, Some(&thrifty)), 429);
    assert_eq!(listed(&home, "thrifty")["spent"], spent);
    assert_eq!(chat(&daemon, Some(&slow)), 200, "a minute's requests begin anew");
}

#[test]
fn a_running_daemon_notices_keys_that_were_made_or_changed_behind_its_back() {
    let home = Home::fake();
    let listed = home.path().join("tokens");
    fs::write(&listed, format!("{}\n", "first-".repeat(6))).unwrap();
    fs::write(home.path().join("config.toml"), "[auth]\ntokens_file = \"tokens\"\n").unwrap();
    let daemon = home.start_daemon();
    let knows = |key: &str| lets_in(&daemon, Some(key));
    let (first, second) = ("first-".repeat(6), "second".repeat(6));
    assert_eq!((knows(&first), knows(&second)), (true, false));

    fs::write(&listed, format!("{first}\n{second}\n")).unwrap();
    wait_for("the second token", SOON, || knows(&second));
    assert!(knows(&first), "both are valid while they are changed over");
    fs::write(&listed, format!("{second}\n")).unwrap();
    wait_for("the first token to be gone", SOON, || !knows(&first));
    // A file that went wrong locks nobody out and lets nobody in.
    fs::write(&listed, "").unwrap();
    let log = || fs::read_to_string(home.path().join("logs/daemon.log")).unwrap_or_default();
    wait_for("the warning", SOON, || log().contains("holds no token"));
    assert_eq!((knows(&second), knows(&first)), (true, false));

    // Another writer of the store, as a command is that did not see the daemon start.
    let file = home.path().join("run/daemon.json");
    let aside = home.scratch().join("daemon.json");
    fs::rename(&file, &aside).unwrap();
    let made = create(&home, "aside", &[]);
    fs::rename(&aside, &file).unwrap();
    wait_for("the key that was made aside", SOON, || knows(&made));

    let log = log();
    for secret in [&first, &second, &made] {
        assert!(!log.contains(secret.as_str()), "the log holds a key");
    }
}

#[test]
fn others_are_let_near_only_with_a_key() {
    let home = Home::fake();
    let start = |home: &Home| {
        let mut command = home.command(&["daemon", "start"]);
        command.env("ORCHESTRATORD_ADDR", "0.0.0.0:0");
        testkit::run(command)
    };
    let refused = start(&home);
    assert_ne!(refused.exit_code, Some(0), "{refused}");
    assert!(refused.stderr.contains("there is no key"), "{refused}");

    let key = create(&home, "lan", &[]);
    start(&home).expect_exit(0);
    let daemon = home.daemon();
    let daemon = Daemon { address: daemon.address.replace("0.0.0.0", "127.0.0.1"), ..daemon };
    let knows = |key| lets_in(&daemon, key);
    assert_eq!((knows(None), knows(Some(&key))), (false, true));
    // The last key goes, and the door stays shut.
    home.ok(&["token", "revoke", "lan"]);
    assert_eq!((knows(None), knows(Some(&key))), (false, false));
}
