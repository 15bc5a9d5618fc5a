//! Pools, nodes, capabilities and placement decisions over `/v2`, and how requests are kept from engines.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use orch_api::ENDPOINTS;
use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use support::stream::Stream;
use testkit::http::{self, Reply};
use testkit::{wait_for, wait_for_value};

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Reply {
    let key = format!("Bearer {}", daemon.token);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&daemon.address, method, path, &headers, body.as_bytes()).unwrap()
}

fn get(daemon: &Daemon, path: &str) -> Value {
    let reply = ask(daemon, "GET", path, &Value::Null);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

fn node(daemon: &Daemon) -> Value {
    get(daemon, "/v2/nodes")[0].clone()
}

fn of_node(daemon: &Daemon, step: &str) -> String {
    format!("/v2/nodes/{}/{step}", node(daemon)["node_id"].as_str().unwrap())
}

/// Waits for the end of an operation that was accepted.
#[track_caller]
fn ended(daemon: &Daemon, accepted: &Reply) -> Value {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let path = format!("/v2/operations/{}?wait_ms=5000", accepted.json()["id"].as_str().unwrap());
    wait_for_value("the end of the operation", SOON, || {
        let looked = get(daemon, &path);
        ["done", "failed"].contains(&looked["state"].as_str()?).then_some(looked)
    })
}

fn chat(address: &str, headers: &[(&str, &str)]) -> Reply {
    let body = json!({"model": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    let headers = [&[("content-type", "application/json")], headers].concat();
    http::request(address, "POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()).unwrap()
}

/// So slow that it is still under way whenever a test looks.
fn slow() -> Value {
    json!({"env": {"FAKE_TOKENS": "60", "FAKE_TOKEN_MS": "50"}, "server": {"parallel": 1}})
}

#[test]
fn capabilities_tell_what_there_is_and_what_the_settings_say() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let settings = "[limits]\nqueue = 7\nbody_mb = 3\nfull_policy = \"drop-lru\"\n\
                    [orchestratord]\nplacement_strategy = \"least-loaded\"\n[routes.gpt]\nto = [\"a\"]\n";
    fs::write(home.path().join("config.toml"), settings).unwrap();
    let daemon = home.start_daemon();
    let told = get(&daemon, "/v2/capabilities");
    assert_eq!((&told["api"], &told["profile"]), (&json!("v2"), &json!("home")), "{told}");
    assert_eq!(told["version"], get(&daemon, "/v2/version")["version"]);
    assert_eq!(told["endpoints"].as_array().unwrap().len(), ENDPOINTS.len());
    let limits = &told["limits"];
    assert_eq!((&limits["queue"], &limits["body_mb"]), (&json!(7), &json!(3)), "{limits}");
    assert_eq!(limits["full_policy"], "drop-lru");
    let features = &told["features"];
    assert_eq!((&features["strategy"], &features["routes"]), (&json!("least-loaded"), &json!(["gpt"])));
    assert_eq!((&features["asks_for_keys"], &told["engines"]), (&json!(false), &json!([])));
    assert!(told["data_paths"].as_array().unwrap().contains(&json!("/v1/*")), "{told}");

    home.ok(&["up", "a"]);
    home.ok(&["token", "create"]);
    let told = get(&daemon, "/v2/capabilities");
    assert_eq!(told["features"]["asks_for_keys"], true);
    assert_eq!(told["engines"][0]["instances"], json!(["a"]), "{told}");
}

#[test]
fn pools_tell_their_slots_and_who_waits_for_them() {
    let home = Home::fake();
    let mut config = slow();
    config["aliases"] = json!(["nick"]);
    home.instance("a", &config);
    home.instance("b", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let pools = get(&daemon, "/v2/pools");
    let (a, b) = (&pools[0], &pools[1]);
    assert_eq!((&a["pool_id"], &a["ready"], &a["aliases"]), (&json!("a"), &json!(true), &json!(["nick"])));
    assert_eq!((&a["slots_total"], &a["slots_free"]), (&json!(1), &json!(1)), "{a}");
    assert_eq!(a["node_id"], node(&daemon)["node_id"]);
    assert_eq!(
        (&a["replicas"][0]["replica_id"], &a["replicas"][0]["status"]),
        (&json!("r0"), &json!("running"))
    );
    assert_eq!(
        (&b["pool_id"], &b["ready"], &b["slots_total"]),
        (&json!("b"), &json!(false), &json!(0)),
        "{b}"
    );

    let stream = Stream::chat(&daemon.address, "a", 60);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| chat(&daemon.address, &[]));
        let busy = wait_for_value("somebody who waits", SOON, || {
            let pool = get(&daemon, "/v2/pools")[0].clone();
            (pool["queue"]["interactive"] == 1).then_some(pool)
        });
        assert_eq!((&busy["slots_free"], &busy["queue"]["batch"]), (&json!(0), &json!(0)), "{busy}");
        drop(stream);
        assert_eq!(waits.join().unwrap().status, 200);
    });
    let health = get(&daemon, "/v2/pools/a/health");
    assert_eq!((&health["live"], &health["ready"]), (&json!(true), &json!(true)), "{health}");
    let health = get(&daemon, "/v2/pools/b/health");
    assert_eq!((&health["live"], &health["ready"]), (&json!(false), &json!(false)), "{health}");
    assert_eq!(ask(&daemon, "GET", "/v2/pools/nobody/health", &Value::Null).status, 404);
}

#[test]
fn a_pool_that_is_drained_finishes_what_it_has_and_stops() {
    let home = Home::fake();
    home.instance("a", &slow());
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let stream = Stream::chat(&daemon.address, "a", 60);
    let accepted = ask(&daemon, "POST", "/v2/pools/a/drain", &json!({"deadline_ms": 60_000}));
    assert_eq!((&accepted.json()["kind"], &accepted.json()["instance"]), (&json!("drain"), &json!("a")));
    let refused = wait_for_value("the end of new requests", SOON, || {
        let reply = chat(&daemon.address, &[("x-deadline-ms", "50")]);
        (reply.json()["error"]["code"] == "MODEL_NOT_AVAILABLE").then_some(reply)
    });
    assert_eq!(refused.status, 503, "{}", refused.text());
    stream.finish(SOON).assert_complete(60);
    assert_eq!(ended(&daemon, &accepted)["state"], "done");
    assert_eq!(home.ps("a")["status"], "stopped");
    let again = ended(&daemon, &ask(&daemon, "POST", "/v2/pools/a/drain", &Value::Null));
    assert_eq!((&again["state"], &again["already"]["exit_code"]), (&json!("done"), &json!(20)), "{again}");
    assert_eq!(ask(&daemon, "POST", "/v2/pools/nobody/drain", &json!({})).status, 404);
    assert_eq!(ask(&daemon, "POST", "/v2/pools/a/drain", &json!({"deadline_ms": -1})).status, 400);
    assert_eq!(ask(&daemon, "POST", "/v2/pools/a/drain", &json!({"colour": "red"})).status, 400);
}

#[test]
fn a_drain_ends_at_its_deadline_whoever_is_still_there() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_TOKENS": "100000", "FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let stream = Stream::chat(&daemon.address, "a", 100_000);
    let accepted = ask(&daemon, "POST", "/v2/pools/a/drain", &json!({"deadline_ms": 100}));
    assert_eq!(ended(&daemon, &accepted)["state"], "done");
    let cut = stream.finish(SOON);
    let last = cut.events.last().unwrap();
    assert!(last.contains("WORKER_RESET"), "{last}");
}

#[test]
fn a_cordoned_node_gets_nothing_new_until_it_is_uncordoned_whoever_restarts() {
    let home = Home::fake();
    home.instance("a", &slow());
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let stream = Stream::chat(&daemon.address, "a", 60);
    let cordoned = ask(&daemon, "POST", &of_node(&daemon, "cordon"), &Value::Null);
    assert_eq!((cordoned.status, &cordoned.json()["cordoned"]), (200, &json!(true)), "{}", cordoned.text());
    // What is under way is not touched; what comes waits, and is told when its time is over.
    let late = chat(&daemon.address, &[("x-deadline-ms", "300")]);
    assert!([429, 504].contains(&late.status), "{} {}", late.status, late.text());
    let pinned = chat(&daemon.address, &[("x-placement-pin", "a")]);
    assert_eq!((pinned.status, &pinned.json()["error"]["code"]), (503, &json!("POOL_UNREADY")));
    stream.finish(SOON).assert_complete(60);
    assert_eq!(get(&daemon, "/v2/pools")[0]["ready"], false);

    home.ok(&["daemon", "restart"]);
    let daemon = home.daemon();
    assert_eq!(node(&daemon)["cordoned"], true);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| chat(&daemon.address, &[]));
        wait_for("somebody who waits", SOON, || get(&daemon, "/v2/pools")[0]["queue"]["interactive"] == 1);
        for _ in 0..2 {
            let uncordoned = ask(&daemon, "POST", &of_node(&daemon, "uncordon"), &Value::Null);
            assert_eq!((uncordoned.status, &uncordoned.json()["cordoned"]), (200, &json!(false)));
        }
        assert_eq!(waits.join().unwrap().status, 200, "what has waited is served");
    });
    assert_eq!(ask(&daemon, "POST", "/v2/nodes/nobody/cordon", &Value::Null).status, 404);
    assert_eq!(ask(&daemon, "POST", "/v2/nodes/nobody/drain", &Value::Null).status, 404);
}

#[test]
fn a_node_that_is_drained_finishes_what_it_has_and_keeps_its_engines() {
    let home = Home::fake();
    home.instance("a", &slow());
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let engine = home.engine_pid("a");
    let stream = Stream::chat(&daemon.address, "a", 60);
    let accepted = ask(&daemon, "POST", &of_node(&daemon, "drain"), &json!({"deadline_ms": 60_000}));
    let seen = node(&daemon);
    assert_eq!((&seen["state"], &seen["cordoned"]), (&json!("Draining"), &json!(true)), "{seen}");
    stream.finish(SOON).assert_complete(60);
    assert_eq!(ended(&daemon, &accepted)["state"], "done");
    let seen = node(&daemon);
    assert_eq!((&seen["state"], &seen["cordoned"]), (&json!("Online"), &json!(true)), "{seen}");
    assert_eq!(home.engine_pid("a"), engine);
    assert_eq!(ask(&daemon, "POST", &of_node(&daemon, "uncordon"), &Value::Null).status, 200);
    assert_eq!(chat(&daemon.address, &[]).status, 200);
}

#[test]
fn the_one_node_of_a_home_is_listed_and_no_other_can_join() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    let nodes = get(&daemon, "/v2/nodes");
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    assert_eq!((&nodes[0]["state"], &nodes[0]["pools"]), (&json!("Online"), &json!(["a"])), "{nodes}");
    assert_eq!(nodes[0]["cordoned"], false);
    for (method, path) in [
        ("POST", "/v2/nodes/register"),
        ("POST", "/v2/nodes/elsewhere/heartbeat"),
        ("DELETE", "/v2/nodes/elsewhere"),
    ] {
        let reply = ask(&daemon, method, path, &json!({}));
        assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("PROFILE_OFF")), "{method} {path}");
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{method} {path}");
    }
}

#[test]
fn decisions_tell_where_requests_went_and_why() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    assert_eq!(get(&daemon, "/v2/placement/decisions"), json!([]));
    assert_eq!(chat(&daemon.address, &[("x-request-id", "first")]).status, 200);
    assert_eq!(chat(&daemon.address, &[("x-request-id", "second"), ("x-placement-pin", "a")]).status, 200);
    let decisions = get(&daemon, "/v2/placement/decisions");
    let (latest, first) = (&decisions[0], &decisions[1]);
    assert_eq!((&latest["request_id"], &latest["pinned"]), (&json!("second"), &json!(true)), "{decisions}");
    assert_eq!((&first["request_id"], &first["pinned"]), (&json!("first"), &json!(false)), "{decisions}");
    let replica = format!("{}/a/r0", node(&daemon)["node_id"].as_str().unwrap());
    assert_eq!((&first["chosen"], &first["outcome"]), (&json!(replica), &json!("placed")), "{first}");
    assert_eq!((&first["reason"], &first["attempt"]), (&json!("only"), &json!(1)), "{first}");
    assert_eq!(first["candidates"][0]["replica"], json!(replica));
    assert_eq!(first["candidates"][0]["verdict"], "possible");
}

/// Another model beside the one that instances of this home have.
fn other_model(home: &Home) -> String {
    let path = home.scratch().join("other.gguf");
    fs::copy(home.model(), &path).unwrap();
    path.display().to_string()
}

fn model_of(daemon: &Daemon) -> Value {
    get(daemon, "/v2/instances/a")["config"]["model"]["path"].clone()
}

fn reload(daemon: &Daemon, model: &str) -> Reply {
    ask(daemon, "POST", "/v2/pools/a/reload", &json!({"new_model_ref": model}))
}

/// Only the instance itself is left.
#[track_caller]
fn assert_no_trial(daemon: &Daemon) {
    let instances = get(daemon, "/v2/instances");
    assert_eq!(instances.as_array().unwrap().len(), 1, "{instances}");
}

#[test]
fn a_reload_brings_the_new_model_and_leaves_no_trial() {
    let home = Home::real();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let engine = home.engine_pid("a");
    let other = other_model(&home);
    let accepted = reload(&daemon, &other);
    assert_eq!(accepted.json()["kind"], "reload");
    let end = ended(&daemon, &accepted);
    assert_eq!((&end["state"], &end["error"]), (&json!("done"), &Value::Null), "{end}");
    assert_eq!(model_of(&daemon), json!(other));
    assert_no_trial(&daemon);
    assert_ne!(home.engine_pid("a"), engine);
    assert_eq!(chat(&daemon.address, &[]).status, 200);
    let props = http::get(&daemon.address, "/props?model=a").unwrap().json();
    assert!(props["model_path"].as_str().unwrap().ends_with("other.gguf"), "{props}");
}

#[test]
fn a_model_that_does_not_load_changes_nothing_and_the_old_one_serves_on() {
    let home = Home::real();
    home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let (engine, model) = (home.engine_pid("a"), model_of(&daemon));
    let broken = home.scratch().join("broken.gguf");
    fs::write(&broken, [b"GGUF".as_slice(), &[7; 5000]].concat()).unwrap();
    let missing = home.scratch().join("missing.gguf").display().to_string();
    let no_model = home.scratch().join("text.gguf");
    fs::write(&no_model, "once upon a time").unwrap();
    for (path, status, code) in [
        (broken.display().to_string(), 409, "CONFLICT"),
        (missing, 400, "INVALID_PARAMS"),
        (no_model.display().to_string(), 400, "INVALID_PARAMS"),
        (String::new(), 400, "INVALID_PARAMS"),
    ] {
        let reply = reload(&daemon, &path);
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{path}: {}", reply.text());
        assert_no_trial(&daemon);
    }
    assert_eq!((home.engine_pid("a"), model_of(&daemon)), (engine, model));
    assert_eq!(chat(&daemon.address, &[]).status, 200);
    assert_eq!(ask(&daemon, "POST", "/v2/pools/a/reload", &json!({"model": "x"})).status, 400);
    assert_eq!(ask(&daemon, "POST", "/v2/pools/nobody/reload", &json!({"new_model_ref": "x"})).status, 404);
}

#[test]
fn a_trial_that_a_killed_daemon_left_is_removed_by_the_next_one() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    home.instance("a-reload", &json!({"tags": ["llama-orch-reload-trial"]}));
    home.instance("b-reload", &json!({"tags": ["mine"]}));
    let daemon = home.start_daemon();
    wait_for("the end of the trial", SOON, || get(&daemon, "/v2/instances").as_array().unwrap().len() == 2);
    assert_eq!(home.ps("b-reload")["status"], "stopped");
}

#[test]
fn an_exchange_that_fails_brings_the_old_model_back() {
    let home = Home::fake();
    let starts = home.scratch().join("starts");
    // The first three starts of the file would fail; it begins as if there had been more.
    fs::write(&starts, "0 0\n".repeat(10)).unwrap();
    let faults = json!({"FAKE_START_LOG": starts, "FAKE_EXIT_AT": "loaded", "FAKE_CRASHES": "3",
        "FAKE_LOAD_MS": "1500"});
    home.instance("a", &json!({"env": faults, "restart_policy": {"enabled": false}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let (engine, model, other) = (home.engine_pid("a"), model_of(&daemon), other_model(&home));
    let end = std::thread::scope(|scope| {
        let reloaded = scope.spawn(|| reload(&daemon, &other));
        // While it loads, a trial is listed like any other instance.
        wait_for("the trial's engine", SOON, || {
            let instances = get(&daemon, "/v2/instances");
            let trial = instances.as_array().unwrap().iter().find(|row| row["name"] == "a-reload").cloned();
            let address = trial.and_then(|row| Some(format!("127.0.0.1:{}", row["port"].as_u64()?)));
            address.is_some_and(|address| http::get(&address, "/health").is_ok())
        });
        // The next start is the third, and the one after it the fourth.
        fs::write(&starts, "0 0\n".repeat(2)).unwrap();
        let accepted = reloaded.join().unwrap();
        ended(&daemon, &accepted)
    });
    assert_eq!(end["state"], "failed", "{end}");
    assert!(end["error"]["message"].as_str().unwrap().contains("serves its old model again"), "{end}");
    assert_no_trial(&daemon);
    assert_eq!(model_of(&daemon), model);
    assert_ne!(home.engine_pid("a"), engine);
    assert_eq!(chat(&daemon.address, &[]).status, 200);
}

#[test]
fn the_command_lists_cordons_and_uncordons_the_only_node() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    home.run(&["node", "list"]).expect_exit(60);
    let daemon = home.start_daemon();
    let name = node(&daemon)["node_id"].as_str().unwrap().to_owned();
    let cordoned = home.json(&["node", "cordon", "--json"]);
    assert_eq!((&cordoned["node_id"], &cordoned["cordoned"]), (&json!(name), &json!(true)));
    let listed = home.ok(&["node", "list"]).stdout;
    assert!(listed.contains(&name) && listed.contains("yes"), "{listed}");
    home.ok(&["node", "uncordon", &name]);
    assert_eq!(home.json(&["node", "list", "--json"])[0]["cordoned"], false);
    home.ok(&["node", "drain", "--deadline", "5s"]);
    assert_eq!(node(&daemon)["cordoned"], true);
    home.run(&["node", "cordon", "nobody"]).expect_exit(80);
}
