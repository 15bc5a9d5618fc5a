//! Workflows as a service: submitted over HTTP, followed, cancelled, decided, and gone on with by a daemon that comes
//! back.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::processes::{is_alive, kill_hard};
use support::sse::{Event, EventStream};
use testkit::http::{self, Reply};
use testkit::provider::{FakeProvider, Fault, Script};
use testkit::{wait_for, wait_for_value};

/// Three steps in a row, each asked with words of its own.
const CHAIN: &str = "
version: 1
project: chain
steps:
  first: { llm: { model: m, prompt: first words } }
  second: { needs: [first], llm: { model: m, prompt: 'second words' } }
  third: { needs: [second], llm: { model: m, prompt: 'third words' } }
";

/// A home whose workflows ask this provider, directly (`fake`) and through the gateway (model `m`).
fn home_with(provider: &FakeProvider, more: &str) -> Home {
    let home = Home::fake();
    let settings = format!(
        "[providers.fake]\nkind = \"openai_compatible\"\nbase_url = \"{}/v1\"\n\
         [routes.m]\nto = [\"fake/fake\"]\n{more}",
        provider.url()
    );
    std::fs::write(home.path().join("config.toml"), settings).unwrap();
    home
}

fn ask_as(daemon: &Daemon, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let key = format!("Bearer {token}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&daemon.address, method, path, &headers, body.as_bytes()).unwrap()
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Reply {
    ask_as(daemon, &daemon.token, method, path, body)
}

/// Submits a workflow that is taken.
#[track_caller]
fn submit(daemon: &Daemon, id: &str, spec: &str) {
    let reply = ask(daemon, "POST", "/v2/jobs", &json!({"spec": spec, "job_id": id}));
    assert_eq!(reply.status, 202, "{}", reply.text());
    let accepted = reply.json();
    assert_eq!(accepted["job_id"], id, "{accepted}");
    assert_eq!(accepted["events_url"], format!("/v2/jobs/{id}/events"), "{accepted}");
}

fn show(daemon: &Daemon, id: &str) -> Value {
    ask(daemon, "GET", &format!("/v2/jobs/{id}"), &Value::Null).json()
}

/// Of a job whose steps load models one after the other, on a machine that is busy.
const IN_TIME: Duration = Duration::from_secs(120);

#[track_caller]
fn wait_for_status(daemon: &Daemon, id: &str, status: &str) -> Value {
    wait_for_value(&format!("{id} is {status}"), IN_TIME, || {
        let told = show(daemon, id);
        (told["status"] == status).then_some(told)
    })
}

/// Kills a daemon and starts the next.
fn kill_and_start(home: &Home, daemon: &Daemon) -> Daemon {
    kill_hard(daemon.pid);
    wait_for("the daemon is gone", SOON, || !is_alive(daemon.pid));
    home.start_daemon()
}

fn follow(daemon: &Daemon, id: &str, after: Option<&str>) -> EventStream {
    let key = format!("Bearer {}", daemon.token);
    let mut headers = vec![("authorization", key.as_str())];
    headers.extend(after.map(|after| ("last-event-id", after)));
    EventStream::open(&daemon.address, &format!("/v2/jobs/{id}/events"), &headers)
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn a_job_is_submitted_followed_from_any_event_on_and_looked_at() {
    let provider = FakeProvider::start(Script::default().answer("third words", "the end"));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    submit(&daemon, "j1", CHAIN);
    let events = follow(&daemon, "j1", None).finish();
    let seen = names(&events);
    assert_eq!(seen.first(), Some(&"job.started"), "{seen:?}");
    assert_eq!(seen.last(), Some(&"job.succeeded"), "{seen:?}");
    let numbers: Vec<String> = events.iter().filter_map(|event| event.id.clone()).collect();
    let wanted: Vec<String> = (1..=events.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, wanted);

    let middle = events.len() / 2;
    let rest = follow(&daemon, "j1", events[middle].id.as_deref()).finish();
    assert_eq!(rest, events[middle + 1..]);
    let nothing = follow(&daemon, "j1", events.last().unwrap().id.as_deref()).finish();
    assert_eq!(nothing, []);

    // Command and server tell the same of the same folder.
    let told = show(&daemon, "j1");
    assert_eq!(told["status"], "succeeded", "{told}");
    let shown = home.json(&["show", "j1", "--json"]);
    assert_eq!(told["steps"], shown["steps"]);
    let journal = std::fs::read_to_string(home.path().join("runs/j1/events.jsonl")).unwrap();
    let lines: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent: Vec<Value> = events.iter().map(|event| event.data.clone()).collect();
    assert_eq!(sent, lines);

    let listed = ask(&daemon, "GET", "/v2/jobs?limit=5", &Value::Null).json();
    assert_eq!((&listed[0]["job_id"], &listed[0]["steps_done"]), (&json!("j1"), &json!(3)), "{listed}");
    for missing in ["/v2/jobs/nobody", "/v2/jobs/..", "/v2/jobs/nobody/events"] {
        assert_eq!(ask(&daemon, "GET", missing, &Value::Null).status, 404, "{missing}");
    }
}

#[test]
fn the_same_submission_is_the_same_job_and_another_under_its_name_a_conflict() {
    let provider = FakeProvider::start(Script::default());
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    submit(&daemon, "j1", CHAIN);
    let again = ask(&daemon, "POST", "/v2/jobs", &json!({"spec": CHAIN, "job_id": "j1"}));
    assert_eq!((again.status, &again.json()["job_id"]), (200, &json!("j1")), "{}", again.text());
    let other = CHAIN.replace("third words", "other words");
    let refused = ask(&daemon, "POST", "/v2/jobs", &json!({"spec": other, "job_id": "j1"}));
    assert_eq!((refused.status, &refused.json()["exit_code"]), (409, &json!(14)), "{}", refused.text());
    wait_for_status(&daemon, "j1", "succeeded");
    assert_eq!(provider.stats().requests, 3);
    // In a home without keys, they are this home's own: anybody's are others.
    wait_for("the requests in the log", SOON, || {
        home.json(&["requests", "--json", "--key", "local"]).as_array().unwrap().len() == 3
    });
}

#[test]
fn what_cannot_be_a_job_is_refused_with_every_place_that_is_wrong() {
    let provider = FakeProvider::start(Script::default());
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    let wrong = "version: 1\nproject: p\nsteps:\n  a: { llm: { model: m, promt: hi } }\n  b: { needs: [nobody], pass: {} }\n";
    let refused = ask(&daemon, "POST", "/v2/jobs", &json!({"spec": wrong}));
    let told = refused.json();
    assert_eq!((refused.status, &told["exit_code"]), (400, &json!(71)), "{told}");
    let lines: Vec<u64> =
        told["problems"].as_array().unwrap().iter().filter_map(|it| it["line"].as_u64()).collect();
    assert!(lines.contains(&4) && lines.contains(&5), "{told}");
    let declares = "version: 1\nproject: p\ninputs: { doc: { type: file, required: true } }\nsteps: { a: { pass: {} } }\n";
    let long = "x".repeat(100_000);
    let many: BTreeMap<String, u8> = (0..1000).map(|number| (format!("x{number}"), 1)).collect();
    for (body, part) in [
        (json!({"spec": CHAIN, "colour": "red"}), "colour"),
        (json!({"spec": CHAIN, "job_id": "../x"}), "names no job"),
        (json!({"spec": CHAIN, "inputs": {"x": 1}}), "declares no such input"),
        (json!({"spec": declares, "inputs": {"doc": "/etc/passwd"}}), "{path, text}"),
        (json!({"spec": CHAIN, "options": {"provider": "nobody"}}), "no provider nobody"),
        (json!({"spec": CHAIN, "options": {"provider": long}}), "options.provider"),
        (json!({"spec": CHAIN, "job_id": long}), "names no job"),
        (json!({"spec": CHAIN, "inputs": {&long: 1}}), "declares no such input"),
        (json!({"spec": CHAIN, "inputs": many}), "and 980 more"),
    ] {
        let refused = ask(&daemon, "POST", "/v2/jobs", &body);
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(part), "{}", refused.text());
        assert!(refused.text().len() < 10_000, "what was sent is not told in full: {}", refused.text().len());
    }
    assert_eq!(home.json(&["jobs", "--json"]), json!([]), "nothing was left behind");
}

#[test]
fn a_cancelled_job_hangs_up_on_its_provider_and_cancelling_again_changes_nothing() {
    let provider = FakeProvider::start(Script::default().fault("second words", Fault::Stall, 1));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    submit(&daemon, "j1", CHAIN);
    wait_for("the second step hangs", SOON, || provider.count("second words") == 1);
    for _ in 0..2 {
        let reply = ask(&daemon, "POST", "/v2/jobs/j1/cancel", &json!({}));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    wait_for("the provider has lost its client", SOON, || provider.stats().cancelled == 1);
    let told = wait_for_status(&daemon, "j1", "cancelled");
    assert_eq!(told["steps"]["first"]["status"], "succeeded", "{told}");
    assert_eq!(names(&follow(&daemon, "j1", None).finish()).last(), Some(&"job.cancelled"));

    // Resumed, it goes on where it was, if it may go on like that.
    let body = json!({"options": {"provider": "nobody"}});
    let refused = ask(&daemon, "POST", "/v2/jobs/j1/resume", &body);
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("no provider nobody"), "{}", refused.text());
    let reply = ask(&daemon, "POST", "/v2/jobs/j1/resume", &json!({}));
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert!(!reply.text().contains("cancelled"), "that end is none any more: {}", reply.text());
    wait_for_status(&daemon, "j1", "succeeded");
    assert_eq!((provider.count("first words"), provider.count("second words")), (1, 2));
}

#[test]
fn a_killed_daemon_comes_back_and_finishes_its_jobs_without_asking_twice() {
    let provider = FakeProvider::start(Script::default().fault("second words", Fault::Stall, 1));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    submit(&daemon, "j1", CHAIN);
    wait_for("the second step hangs", SOON, || provider.count("second words") == 1);
    let daemon = kill_and_start(&home, &daemon);
    let told = wait_for_status(&daemon, "j1", "succeeded");
    assert_eq!(told["lives"], 2, "{told}");
    let asked = ["first words", "second words", "third words"].map(|words| provider.count(words));
    assert_eq!(asked, [1, 2, 1], "only what was under way was asked again");

    // What has ended stays as it is when the next daemon comes.
    let daemon = kill_and_start(&home, &daemon);
    submit(&daemon, "j2", "version: 1\nproject: p\nsteps: { a: { pass: { value: 1 } } }\n");
    wait_for_status(&daemon, "j2", "succeeded");
    assert_eq!(show(&daemon, "j1")["lives"], 2);
}

#[test]
fn a_daemon_that_stops_leaves_its_jobs_where_the_next_one_goes_on() {
    let provider = FakeProvider::start(Script::default().fault("second words", Fault::Stall, 1));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    submit(&daemon, "j1", CHAIN);
    wait_for("the second step hangs", SOON, || provider.count("second words") == 1);
    let stream = follow(&daemon, "j1", None);
    home.ok(&["daemon", "stop"]);
    stream.finish();
    assert_eq!(home.json(&["show", "j1", "--json"])["status"], "interrupted");
    let daemon = home.start_daemon();
    wait_for_status(&daemon, "j1", "succeeded");
    let asked = ["first words", "second words", "third words"].map(|words| provider.count(words));
    assert_eq!(asked, [1, 2, 1]);
}

#[test]
fn a_command_that_follows_a_job_goes_on_with_the_daemon_that_came_back() {
    let provider = FakeProvider::start(Script::default().fault("second words", Fault::Stall, 1));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    let spec = home.scratch().join("chain.yaml");
    std::fs::write(&spec, CHAIN).unwrap();
    let spec = spec.to_str().unwrap();
    let mut command = home.spawn(&["run", "--submit", "--spec", spec, "--job-id", "j1"], "followed");
    wait_for("the second step hangs", SOON, || provider.count("second words") == 1);
    kill_and_start(&home, &daemon);
    wait_for("the command ends", SOON, || command.has_ended());
    assert!(command.exit_status().unwrap().success(), "{}", command.output());
    assert!(command.output().contains("3 of 3 done"), "{}", command.output());
}

const GATE: &str = "
version: 1
project: gated
steps:
  draft: { llm: { model: m, prompt: draft words } }
  review: { needs: [draft], gate: { message: good enough?, choices: [approve, reject] } }
  publish: { needs: [review], llm: { model: m, prompt: publish words } }
";

#[test]
fn a_gate_is_decided_over_http_also_after_the_daemon_was_killed() {
    let provider = FakeProvider::start(Script::default());
    let home = home_with(&provider, "");
    let mut daemon = home.start_daemon();
    for (id, kill, by_command) in [("j1", false, false), ("j2", true, false), ("j3", false, true)] {
        submit(&daemon, id, &GATE.replace("words", id));
        wait_for_status(&daemon, id, "waiting");
        if kill {
            daemon = kill_and_start(&home, &daemon);
        }
        let decide = |step: &str, choice: &str| {
            let body = json!({"step": step, "choice": choice});
            ask(&daemon, "POST", &format!("/v2/jobs/{id}/decide"), &body)
        };
        for (step, choice) in [("review", "maybe"), ("draft", "approve"), ("nobody", "approve")] {
            let refused = decide(step, choice);
            assert!(matches!(refused.status, 400 | 404 | 409), "{step} {choice}: {}", refused.text());
        }
        assert_eq!(show(&daemon, id)["status"], "waiting");
        if by_command {
            home.ok(&["decide", id, "review", "approve"]);
        } else {
            let reply = decide("review", "approve");
            assert_eq!(reply.status, 204, "{}", reply.text());
        }
        wait_for_status(&daemon, id, "succeeded");
        let asked = (provider.count(&format!("draft {id}")), provider.count(&format!("publish {id}")));
        assert_eq!(asked, (1, 1), "{id}");
    }
}

/// Makes a key and gives its secret and its id.
fn create(home: &Home, name: &str, limits: &[&str]) -> (String, String) {
    let created = home.json(&[&["token", "create", "--json", "--name", name], limits].concat());
    let text = |field: &str| created[field].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

#[test]
fn a_key_does_what_it_may_and_sees_its_own_jobs_only() {
    let provider = FakeProvider::start(Script::default());
    let home = home_with(&provider, "[workflow]\nallow_run = true\n");
    let daemon = home.start_daemon();
    let (one, _) = create(&home, "one", &[]);
    let (two, _) = create(&home, "two", &[]);
    let (reader, _) = create(&home, "reader", &["--scope", "read"]);
    let (admin, _) = create(&home, "admin", &["--scope", "admin"]);
    let runs = "version: 1\nproject: p\nsteps: { a: { run: { argv: [echo, hi] } } }\n";
    let private = format!(
        "version: 1\nproject: p\nsteps: {{ a: {{ http: {{ url: \"{}/stats\" }} }} }}\n",
        provider.url()
    );
    for spec in [runs, &private] {
        let refused = ask_as(&daemon, &one, "POST", "/v2/jobs", &json!({"spec": spec}));
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (403, &json!("FORBIDDEN")),
            "{}",
            refused.text()
        );
        let taken = ask_as(&daemon, &admin, "POST", "/v2/jobs", &json!({"spec": spec}));
        assert_eq!(taken.status, 202, "{}", taken.text());
        wait_for_status(&daemon, taken.json()["job_id"].as_str().unwrap(), "succeeded");
    }
    let direct = json!({"spec": CHAIN, "options": {"provider": "fake"}});
    assert_eq!(ask_as(&daemon, &one, "POST", "/v2/jobs", &direct).status, 403, "past the gateway");
    assert_eq!(ask_as(&daemon, &reader, "POST", "/v2/jobs", &json!({"spec": CHAIN})).status, 403);

    let taken = ask_as(&daemon, &one, "POST", "/v2/jobs", &json!({"spec": CHAIN, "job_id": "j1"}));
    assert_eq!(taken.status, 202, "{}", taken.text());
    wait_for_status(&daemon, "j1", "succeeded");
    let sees = |key: &str| ask_as(&daemon, key, "GET", "/v2/jobs/j1", &Value::Null).status;
    assert_eq!([&one, &two, &admin].map(|key| sees(key)), [200, 404, 200]);
    let listed =
        |key: &str| ask_as(&daemon, key, "GET", "/v2/jobs", &Value::Null).json().as_array().unwrap().len();
    assert_eq!([&one, &two, &admin].map(|key| listed(key)), [1, 0, 3]);
    for path in ["cancel", "resume"] {
        let reply = ask_as(&daemon, &two, "POST", &format!("/v2/jobs/j1/{path}"), &json!({}));
        assert_eq!(reply.status, 404, "{}", reply.text());
    }
}

#[test]
fn requests_of_a_job_count_as_its_submitters_and_end_with_the_key() {
    let provider = FakeProvider::start(Script::default().fault("second words", Fault::Stall, 1));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    let (other, _) = create(&home, "narrow", &["--models", "something-else"]);
    let refused = ask_as(&daemon, &other, "POST", "/v2/jobs", &json!({"spec": CHAIN, "job_id": "narrow"}));
    assert_eq!(refused.status, 202, "{}", refused.text());
    wait_for_status(&daemon, "narrow", "failed");
    assert_eq!(provider.stats().requests, 0, "a model that the key may not ask for was asked");

    let (token, id) = create(&home, "worker", &[]);
    let taken = ask_as(&daemon, &token, "POST", "/v2/jobs", &json!({"spec": CHAIN, "job_id": "j1"}));
    assert_eq!(taken.status, 202, "{}", taken.text());
    wait_for("the second step hangs", SOON, || provider.count("second words") == 1);
    let logged = wait_for_value("the first request in the log", SOON, || {
        home.json(&["requests", "--json", "--key", &id]).get(0).cloned()
    });
    assert_eq!(logged["outcome"], "done", "{logged}");

    // The key goes while nobody works on the job: the next daemon does not go on with it.
    kill_hard(daemon.pid);
    wait_for("the daemon is gone", SOON, || !is_alive(daemon.pid));
    home.ok(&["token", "revoke", "worker"]);
    let daemon = home.start_daemon();
    let told = wait_for_status(&daemon, "j1", "failed");
    assert!(told["error"].as_str().unwrap().contains("no longer valid"), "{told}");
    assert_eq!(provider.count("third words"), 0);
}

#[test]
fn more_jobs_than_are_worked_on_at_once_wait_for_their_turn() {
    const JOBS: usize = 6;
    const AT_ONCE: usize = 4;
    let provider = FakeProvider::start(Script::default().fault("words of", Fault::Stall, AT_ONCE as u64));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    for number in 0..JOBS {
        let spec = format!(
            "version: 1\nproject: p\nsteps: {{ a: {{ llm: {{ model: m, prompt: words of {number} }} }} }}\n"
        );
        submit(&daemon, &format!("j{number}"), &spec);
    }
    wait_for("as many as are worked on at once", SOON, || provider.stats().in_flight == AT_ONCE as u64);
    assert_eq!(show(&daemon, "j5")["status"], "queued");
    let metrics = http::get(&daemon.address, "/metrics").unwrap().text();
    assert!(metrics.contains("workflow_jobs{state=\"running\"} 4"), "{metrics}");
    assert!(metrics.contains("workflow_jobs{state=\"queued\"} 2"), "{metrics}");
    // One that waits can be cancelled before its turn, and costs nothing then.
    assert_eq!(ask(&daemon, "POST", "/v2/jobs/j4/cancel", &json!({})).status, 204);
    assert_eq!(ask(&daemon, "POST", "/v2/jobs/j0/cancel", &json!({})).status, 204);
    wait_for_status(&daemon, "j4", "cancelled");
    wait_for_status(&daemon, "j5", "succeeded");
    assert_eq!(provider.count("words of 4"), 0);
}

#[test]
fn nobody_fills_the_queue_alone() {
    const AT_ONCE: usize = 4;
    const OF_ONE: usize = 250;
    let provider = FakeProvider::start(Script::default().fault("words of", Fault::Stall, AT_ONCE as u64));
    let home = home_with(&provider, "");
    let daemon = home.start_daemon();
    let (one, _) = create(&home, "one", &[]);
    let (two, _) = create(&home, "two", &[]);
    let give = |key: &str, number: usize| {
        let step = format!("a: {{ llm: {{ model: m, prompt: words of {number} }} }}");
        let spec = format!("version: 1\nproject: p\nsteps: {{ {step} }}\n");
        ask_as(&daemon, key, "POST", "/v2/jobs", &json!({"spec": spec}))
    };
    for number in 0..AT_ONCE {
        assert_eq!(give(&one, number).status, 202);
    }
    wait_for("as many as are worked on at once", SOON, || provider.stats().in_flight == AT_ONCE as u64);
    for number in 0..OF_ONE {
        assert_eq!(give(&one, AT_ONCE + number).status, 202, "{number}");
    }
    let refused = give(&one, AT_ONCE + OF_ONE);
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("ADMISSION_REJECT")));
    assert!(refused.text().contains("of one key") && refused.json()["retry_after_ms"].is_u64());
    assert_eq!(give(&two, 1000).status, 202, "another's turn comes");
}

/// The exit code and the last line of a command that is not expected to succeed.
fn code(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let run = home.run(arguments);
    (run.exit_code, run.stdout.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_command_submits_follows_and_ends_as_the_job_does_also_elsewhere() {
    let failing = Fault::Status { status: 401, retry_after: None, headers: BTreeMap::default(), body: None };
    let provider = FakeProvider::start(Script::default().fault("bad words", failing, 1000));
    let home = home_with(&provider, "");
    let write = |name: &str, text: &str| {
        let path = home.scratch().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.yaml", CHAIN);
    let bad = write("bad.yaml", &CHAIN.replace("second words", "bad words"));
    let gated = write("gated.yaml", GATE);
    let wrong = write("wrong.yaml", "version: 1\nproject: p\nsteps: { a: { needs: [b], pass: {} } }\n");
    assert_eq!(code(&home, &["run", "--submit", "--spec", &good]).0, Some(60), "nobody to submit to");
    let daemon = home.start_daemon();
    let submit =
        |spec: &str, id: &str| code(&home, &["run", "--submit", "--spec", spec, "--job-id", id, "--json"]);

    let (ended, last) = submit(&good, "good");
    assert_eq!(ended, Some(0));
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&last["type"], &last["job_id"]), (&json!("job.succeeded"), &json!("good")));
    assert_eq!(submit(&bad, "bad").0, Some(70));
    assert_eq!(submit(&gated, "gated").0, Some(73));
    let waits = home.run(&["run", "--submit", "--spec", &gated, "--job-id", "asks"]);
    assert!(waits.stdout.contains("good enough? (approve, reject)"), "{waits}");
    assert!(waits.stdout.contains("llama-orch decide asks review approve|reject\n"), "{waits}");
    assert_eq!(submit(&wrong, "wrong").0, Some(71));
    assert_eq!(submit(&bad, "good").0, Some(14));
    assert_eq!(code(&home, &["run", "--submit", "--resume", "nobody"]).0, Some(72));

    let named = ["run", "--submit", "--spec", &good, "--job-id", "named", "--provider", "fake"];
    assert_eq!(code(&home, &named).0, Some(0));
    let asked = provider.stats().requests;
    assert_eq!(code(&home, &["run", "--submit", "--resume", "named"]).0, Some(0));
    assert_eq!(provider.stats().requests, asked, "whom it asked before, and so nothing again");

    // From a home of its own, over the network.
    let elsewhere = Home::fake();
    let url = format!("http://{}", daemon.address);
    let there = |arguments: &[&str]| {
        let mut command = elsewhere.command(&[&["--server", url.as_str()], arguments].concat());
        command.env("LLAMA_ORCH_TOKEN", &daemon.token);
        testkit::run(command)
    };
    let told = |arguments: &[&str]| {
        let run = there(arguments);
        run.expect_exit(0);
        run.stdout
    };
    assert_eq!(told(&["jobs", "--json"]).matches("\"job_id\"").count(), 5);
    assert!(told(&["show", "gated"]).contains("waiting"));
    assert!(told(&["tail", "good"]).contains("job.succeeded"));
    told(&["decide", "gated", "review", "approve"]);
    let resumed = there(&["run", "--submit", "--resume", "bad"]);
    assert_eq!(resumed.exit_code, Some(70), "{}", resumed.stderr);
    told(&["tail", "-f", "gated"]);
    assert_eq!(show(&daemon, "gated")["status"], "succeeded");
    told(&["cancel", "gated"]);
    assert_eq!(show(&daemon, "gated")["status"], "succeeded", "what is over stays as it is");
    assert!(!elsewhere.path().join("runs").exists());
}

/// Weights by the size of the file: nothing of it is ever read but its head.
const MODEL_BYTES: u64 = 600 << 20;

/// A home with two models that are loaded on demand, of which the first writes slowly, and room for so much.
fn home_with_engines(memory_mib: u64) -> Home {
    let home = Home::fake();
    let model = home.scratch().join("large.gguf");
    testkit::write_tiny_model(&model, &testkit::TinyModel::default()).unwrap();
    std::fs::File::options().write(true).open(&model).unwrap().set_len(MODEL_BYTES).unwrap();
    for name in ["a", "b"] {
        let starts = home.scratch().join(format!("{name}.starts"));
        let slow = if name == "a" { "100" } else { "0" };
        let env = json!({"FAKE_START_LOG": starts, "FAKE_TOKENS": "20", "FAKE_TOKEN_MS": slow});
        let model = json!({"path": model, "context_size": 2048});
        home.instance(name, &json!({"model": model, "lifecycle": {"load": "on_demand"}, "env": env}));
    }
    let settings = format!(
        "[pool_managerd]\nmemory_mb = {memory_mib}\n[limits]\nmin_residency_s = 1\nstarvation_s = 60\n"
    );
    std::fs::write(home.path().join("config.toml"), settings).unwrap();
    home
}

fn starts(home: &Home, name: &str) -> usize {
    let log = home.scratch().join(format!("{name}.starts"));
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

const ONE_AFTER_THE_OTHER: &str = "
version: 1
project: two
steps:
  one: { llm: { model: a, prompt: one } }
  two: { needs: [one], llm: { model: b, prompt: two } }
";

#[test]
fn the_next_steps_model_is_loaded_while_the_step_before_it_is_asked_if_it_fits_beside() {
    for (memory_mib, fits) in [(2400, true), (1000, false)] {
        let home = home_with_engines(memory_mib);
        let daemon = home.start_daemon();
        submit(&daemon, "j1", ONE_AFTER_THE_OTHER);
        let told = wait_for_status(&daemon, "j1", "succeeded");
        assert_eq!((starts(&home, "a"), starts(&home, "b")), (1, 1), "{told}");
        let journal = std::fs::read_to_string(home.path().join("runs/j1/events.jsonl")).unwrap();
        let one_ended = journal
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|event| event["type"] == "step.succeeded" && event["step"] == "one")
            .unwrap();
        let begun = home.events("b")[0]["ts"].as_str().unwrap().to_owned();
        // Moments of one form, in UTC: their text has their order.
        assert_eq!(begun.as_str() < one_ended["ts"].as_str().unwrap(), fits, "{begun} {one_ended}");
    }
}

#[test]
fn steps_that_are_as_urgent_go_by_the_model_that_is_loaded() {
    let home = home_with_engines(1000);
    let daemon = home.start_daemon();
    let step = |number: usize| {
        let model = if number.is_multiple_of(2) { "b" } else { "a" };
        format!("  s{number}: {{ llm: {{ model: {model}, prompt: \"{number}\" }} }}\n")
    };
    let steps: String = (0..6).map(step).collect();
    submit(&daemon, "j1", &format!("version: 1\nproject: p\nlimits: {{ steps: 1 }}\nsteps:\n{steps}"));
    wait_for_status(&daemon, "j1", "succeeded");
    // In the order of the file each of the six would have loaded its model anew.
    assert_eq!((starts(&home, "a"), starts(&home, "b")), (1, 1));
}
