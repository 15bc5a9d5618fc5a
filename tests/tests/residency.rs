//! What is loaded when: models that do not fit together take turns, idle ones go, and what a user says stands.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::SOON;
use support::home::{Daemon, Home};
use testkit::http::{Reply, post_json};
use testkit::{TinyModel, wait_for, write_tiny_model};

/// Weights by the size of the file: nothing of it is ever read but its head.
const MODEL_BYTES: u64 = 600 << 20;
/// Room for one of them.
const BUDGET_MIB: u64 = 1000;

/// A model as large as a real one, of which the disk holds only the head.
fn large_model(home: &Home) -> PathBuf {
    let path = home.scratch().join("large.gguf");
    if !path.exists() {
        write_tiny_model(&path, &TinyModel::default()).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(MODEL_BYTES).unwrap();
    }
    path
}

fn starts(home: &Home, name: &str) -> usize {
    let log = home.scratch().join(format!("{name}.starts"));
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

/// An instance on demand with a large model; `changes` are merged in.
fn on_demand(home: &Home, name: &str, lifecycle: &Value, env: &Value) {
    let mut lifecycle = lifecycle.clone();
    lifecycle["load"] = json!("on_demand");
    let mut env = env.clone();
    env["FAKE_START_LOG"] = json!(home.scratch().join(format!("{name}.starts")));
    let model = json!({"path": large_model(home), "context_size": 2048});
    home.instance(name, &json!({"model": model, "lifecycle": lifecycle, "env": env}));
}

fn settings(home: &Home, text: &str) {
    std::fs::write(home.path().join("config.toml"), text).unwrap();
}

fn budget(min_residency: u32, starvation: u32) -> String {
    format!(
        "[pool_managerd]\nmemory_mb = {BUDGET_MIB}\n[limits]\nmin_residency_s = {min_residency}\n\
         starvation_s = {starvation}\n"
    )
}

fn ask(daemon: &Daemon, model: &str) -> Reply {
    let body = json!({"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    post_json(&daemon.address, "/v1/chat/completions", &body).unwrap()
}

#[track_caller]
fn answered(daemon: &Daemon, model: &str) {
    let reply = ask(daemon, model);
    assert_eq!(reply.status, 200, "{model}: {}", reply.text());
}

/// The names of `/v1/models`.
fn listed(daemon: &Daemon) -> Vec<String> {
    let list = testkit::http::request(&daemon.address, "GET", "/v1/models", &[], b"").unwrap().json();
    let names = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
    names.collect()
}

fn is_loaded(home: &Home, name: &str) -> bool {
    home.ps(name)["status"] == "running"
}

/// What events say of unloading, oldest first.
fn unloaded(home: &Home, name: &str) -> Vec<String> {
    let events = home.events(name);
    let reasons = events.iter().filter(|event| event["meta"]["unloaded"] == true);
    reasons.filter_map(|event| event["meta"]["reason"].as_str()).map(str::to_owned).collect()
}

#[test]
fn two_models_that_do_not_fit_together_take_turns_and_everybody_is_answered() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    const MIN_RESIDENCY: u32 = 1;
    const STARVATION: u32 = 20;
    let home = Home::fake();
    for name in ["a", "b"] {
        on_demand(&home, name, &json!({}), &json!({"FAKE_LOAD_MS": "100"}));
    }
    settings(&home, &budget(MIN_RESIDENCY, STARVATION));
    let daemon = home.start_daemon();
    let begun = Instant::now();
    let waits: Vec<Duration> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let daemon = &daemon;
            move || -> Vec<Duration> {
                let turn = |request: usize| {
                    let asked = Instant::now();
                    answered(daemon, if (request + number).is_multiple_of(2) { "a" } else { "b" });
                    asked.elapsed()
                };
                (0..EACH).map(turn).collect()
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let took = begun.elapsed();
    let longest = waits.iter().max().unwrap();
    let loads = starts(&home, "a") + starts(&home, "b");
    eprintln!(
        "{} requests of {CLIENTS} clients in {took:.1?}: {loads} loads, the longest wait {longest:.1?}",
        waits.len()
    );
    assert_eq!(waits.len(), CLIENTS * EACH);
    // Each stays for the minimum, so that time bounds the swaps.
    let most = took.as_secs() / u64::from(MIN_RESIDENCY) + 2;
    assert!(loads as u64 <= most, "{loads} loads in {took:?}");
    assert!(*longest < Duration::from_secs(STARVATION.into()), "{longest:?}");
    let reasons = unloaded(&home, "a");
    assert!(reasons.iter().all(|why| why.contains("its memory is needed (host), for b")), "{reasons:?}");
}

#[test]
fn eight_first_requests_load_a_model_once_and_down_stays_down() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({}), &json!({"FAKE_LOAD_MS": "500"}));
    let daemon = home.start_daemon();
    assert_eq!(home.ps("a")["desired_state"], "on_demand");
    assert_eq!(listed(&daemon), ["a"], "it could be asked for");
    assert_eq!(starts(&home, "a"), 0, "nobody has asked yet");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| answered(&daemon, "a"));
        }
    });
    assert_eq!(starts(&home, "a"), 1);
    home.ok(&["down", "a"]);
    let refused = ask(&daemon, "a");
    assert_eq!((refused.status, starts(&home, "a")), (503, 1), "{}", refused.text());
    assert!(refused.text().contains("llama-orch up a"), "{}", refused.text());
    assert!(listed(&daemon).is_empty());
    home.ok(&["up", "a"]);
    let row = home.ps("a");
    assert_eq!((&row["status"], &row["desired_state"]), (&json!("running"), &json!("on_demand")));
    answered(&daemon, "a");
    assert_eq!(starts(&home, "a"), 2);
}

#[test]
fn an_idle_model_is_unloaded_after_its_time_to_live_and_the_next_request_loads_it_again() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({"idle_ttl": 1}), &json!({}));
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    wait_for("the idle model to go", SOON, || home.ps("a")["status"] == "stopped");
    assert_eq!(home.ps("a")["desired_state"], "on_demand");
    assert!(unloaded(&home, "a")[0].starts_with("no request for "), "{:?}", unloaded(&home, "a"));
    answered(&daemon, "a");
    assert_eq!(starts(&home, "a"), 2);
}

#[test]
fn a_model_at_work_is_not_idle_however_long_it_takes() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({"idle_ttl": 1}), &json!({"FAKE_FIRST_TOKEN_MS": "4000"}));
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    assert_eq!(starts(&home, "a"), 1);
}

#[test]
fn a_pinned_model_is_never_evicted_and_who_finds_no_room_is_told_so() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({"pin": true}), &json!({}));
    on_demand(&home, "b", &json!({}), &json!({}));
    settings(&home, &budget(1, 5));
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    let refused = ask(&daemon, "b");
    assert_eq!((refused.status, starts(&home, "b")), (503, 0), "{}", refused.text());
    assert!(is_loaded(&home, "a"));
    home.ok(&["down", "a"]);
    wait_for("room for the other", SOON, || ask(&daemon, "b").status == 200);
}

#[test]
fn of_a_group_one_is_loaded_also_with_the_real_engine() {
    let home = Home::real();
    let lifecycle = json!({"load": "on_demand", "group": "chat"});
    for name in ["a", "b"] {
        home.instance(name, &json!({"lifecycle": lifecycle}));
    }
    settings(&home, "[limits]\nmin_residency_s = 1\n");
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    answered(&daemon, "b");
    assert!(is_loaded(&home, "b") && !is_loaded(&home, "a"));
    assert!(unloaded(&home, "a")[0].starts_with("only one of group chat is loaded at a time, for b"));
    answered(&daemon, "a");
    assert!(is_loaded(&home, "a") && !is_loaded(&home, "b"));
}

#[test]
fn a_load_that_runs_out_of_memory_evicts_more_and_is_tried_once_more() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({}), &json!({}));
    let fails_once = json!({
        "FAKE_EXIT_AT": "loaded", "FAKE_CRASHES": "1",
        "FAKE_LAST_WORDS": "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
    });
    on_demand(&home, "b", &json!({}), &fails_once);
    settings(&home, "[limits]\nmin_residency_s = 1\n");
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    answered(&daemon, "b");
    assert_eq!(starts(&home, "b"), 2, "once out of memory, once more with room");
    assert!(!is_loaded(&home, "a"));
    assert!(home.event_types("b").contains(&"crashed".to_owned()));
}

#[test]
fn up_of_a_manual_instance_makes_room_and_it_is_never_evicted_itself() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({}), &json!({}));
    let model = json!({"path": large_model(&home), "context_size": 2048});
    home.instance("b", &json!({"model": model}));
    settings(&home, &budget(60, 60));
    let daemon = home.start_daemon();
    answered(&daemon, "a");
    home.ok(&["up", "b"]);
    assert!(!is_loaded(&home, "a"), "what is idle makes room for what a user starts");
    assert_eq!(ask(&daemon, "a").status, 503);
    assert!(is_loaded(&home, "b"));
}

#[test]
fn plan_load_and_gpu_list_tell_who_holds_what_and_who_would_go_with_and_without_a_daemon() {
    let home = Home::fake();
    on_demand(&home, "a", &json!({}), &json!({}));
    on_demand(&home, "b", &json!({}), &json!({}));
    settings(&home, &budget(1, 20));
    let alone = home.json(&["plan-load", "b", "--json"]);
    assert_eq!(alone["plan"]["verdict"], "fits", "{alone}");
    let host = &alone["places"][0];
    assert_eq!((&host["place"], &host["usable_bytes"]), (&json!("host"), &json!(BUDGET_MIB << 20)));
    assert_eq!(alone["plan"]["needs"][0]["weights_bytes"], json!(MODEL_BYTES));

    let daemon = home.start_daemon();
    answered(&daemon, "a");
    wait_for("its shortest stay to be over", SOON, || {
        home.json(&["plan-load", "b", "--json"])["plan"]["verdict"] == "evicts"
    });
    let told = home.json(&["plan-load", "b", "--json"]);
    assert_eq!(told["plan"]["evicts"][0]["instance"], "a", "{told}");
    let held = &told["places"][0]["holders"][0];
    assert_eq!((&held["instance"], &held["basis"]), (&json!("a"), &json!("measured")), "{told}");
    assert!(
        held["reserved_bytes"].as_u64() >= Some(MODEL_BYTES),
        "files count though they are not all there"
    );
    let text = home.ok(&["plan-load", "b"]).stdout;
    assert!(text.contains("evicts a: its memory is needed (host)"), "{text}");
    let text = home.ok(&["gpu", "list"]).stdout;
    assert!(text.contains("HELD BY") && text.contains("host"), "{text}");
    home.run(&["plan-load", "nobody"]).expect_exit(13);
    let fit = home.describe("b")["memory_fit"].clone();
    assert_eq!((&fit["fits"], &fit["places"][0]["place"]), (&json!(true), &json!("host")), "{fit}");
}
