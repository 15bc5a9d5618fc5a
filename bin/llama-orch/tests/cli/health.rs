//! `health`: every state with its exit code, and an answer in bounded time whatever an engine does.

use std::time::{Duration, Instant};

use orch_core::ExitCode;
use serde_json::{Value, json};
use testkit::{ProgramRun, TempHome, free_port, http};

use crate::scene::{Attached, home_with_engine};

fn code(exit: ExitCode) -> i32 {
    i32::from(exit.number())
}

/// An instance of the fake engine with this health check; the port.
fn checked(home: &TempHome, name: &str, healthcheck: &Value, knobs: &Value) -> u16 {
    let port = free_port();
    let config = json!({
        "name": name,
        "model": {"path": home.tiny_model(), "context_size": 2048, "threads": 1},
        "server": {"port": port},
        "healthcheck": healthcheck,
        "env": knobs,
    });
    home.write_instance(name, &config);
    port
}

fn set_fault(port: u16, knob: &str, value: &str) {
    let reply = http::post_json(&format!("127.0.0.1:{port}"), "/fake/faults", &json!({knob: value})).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn only_answer(run: &ProgramRun) -> Value {
    let answers = run.json();
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{run}");
    answers[0].clone()
}

#[test]
fn each_state_has_its_exit_code_and_says_why() {
    let home = home_with_engine();
    let port = checked(&home, "chat", &json!({"timeout": 0.5}), &json!({}));
    let health = |expected: ExitCode| {
        let run = home.llama_orch(&["health", "chat", "--json"]);
        let answer = only_answer(run.expect_exit(code(expected)));
        (answer["health"].as_str().unwrap().to_owned(), answer["error"].clone())
    };
    assert_eq!(health(ExitCode::NotRunning), ("unknown".to_owned(), Value::Null));
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    assert_eq!(health(ExitCode::Success), ("healthy".to_owned(), Value::Null));
    for (status, expected, word) in
        [("500", ExitCode::Unhealthy, "unhealthy"), ("503", ExitCode::Starting, "loading")]
    {
        set_fault(port, "FAKE_HEALTH_STATUS", status);
        assert_eq!(health(expected).0, word);
    }
    set_fault(port, "FAKE_HEALTH_STATUS", "500");
    assert_eq!(health(ExitCode::Unhealthy).1, "HTTP 500");
    set_fault(port, "FAKE_HANG", "health");
    assert_eq!(health(ExitCode::Unhealthy).1, "no answer in time");
    set_fault(port, "FAKE_EXIT_AFTER_MS", "1");
    testkit::wait_for("the engine to end", Duration::from_secs(30), || {
        home.llama_orch(&["health", "chat"]).exit_code == Some(code(ExitCode::Crashed))
    });
    assert_eq!(health(ExitCode::Crashed).0, "error");
}

#[test]
fn many_engines_that_hang_take_as_long_as_one() {
    let home = home_with_engine();
    let names = ["a", "b", "c", "d", "e", "f"];
    let ports: Vec<u16> =
        names.iter().map(|name| checked(&home, name, &json!({"timeout": 5}), &json!({}))).collect();
    checked(&home, "well", &json!({}), &json!({}));
    home.llama_orch(&["up", "--all"]).expect_exit(0);
    for port in ports {
        set_fault(port, "FAKE_HANG", "health");
    }
    let begun = Instant::now();
    let run = home.llama_orch(&["health", "--all", "--json"]);
    let answers = run.expect_exit(code(ExitCode::Unhealthy)).json();
    let healthy: Vec<&Value> =
        answers.as_array().unwrap().iter().filter(|it| it["health"] == "healthy").collect();
    assert_eq!((healthy.len(), &healthy[0]["name"]), (1, &json!("well")));
    assert!(healthy[0]["response_time_ms"].as_f64().unwrap() > 0.0);
    assert!(begun.elapsed() < Duration::from_secs(20), "one after the other: {:?}", begun.elapsed());
}

#[test]
fn an_instance_that_is_meant_to_be_stopped_is_nothing_bad_unless_it_is_named() {
    let home = home_with_engine();
    checked(&home, "chat", &json!({}), &json!({}));
    let run = home.llama_orch(&["health", "--json"]);
    assert_eq!(run.expect_exit(0).json(), json!([]));
    let listed = home.llama_orch(&["health", "--all", "--json"]).expect_exit(0).json();
    assert_eq!((&listed[0]["name"], &listed[0]["status"]), (&json!("chat"), &json!("stopped")));
    home.llama_orch(&["health", "chat"]).expect_exit(code(ExitCode::NotRunning));
}

#[test]
fn watching_shows_a_line_for_each_look_until_it_is_interrupted() {
    let home = home_with_engine();
    let port = checked(&home, "chat", &json!({}), &json!({}));
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let watch = Attached::start(&home, &["health", "--watch", "--json"]);
    watch.wait_for("a healthy look", |output| output.contains("\"healthy\""));
    set_fault(port, "FAKE_HEALTH_STATUS", "500");
    watch.wait_for("an unhealthy look", |output| output.contains("HTTP 500"));
    assert_eq!(watch.interrupt(), Some(code(ExitCode::Interrupted)));
    for line in watch.output().lines() {
        let look: Value = serde_json::from_str(line).unwrap();
        assert_eq!(look[0]["name"], "chat");
    }
}

#[test]
fn an_engine_is_ready_only_after_its_warm_up_completion() {
    let home = home_with_engine();
    let warm = json!({"warmup_enabled": true, "warmup_prompt": "Good morning"});
    let fails_twice = json!({"FAKE_STATUS": "500", "FAKE_STATUS_TIMES": "2"});
    let port = checked(&home, "chat", &warm, &fails_twice);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let seen = http::get(&format!("127.0.0.1:{port}"), "/fake/requests").unwrap().json();
    let prompts: Vec<&Value> = seen
        .as_array()
        .unwrap()
        .iter()
        .filter(|request| request["path"] == "/v1/completions")
        .map(|request| &request["body"])
        .collect();
    assert_eq!(prompts.len(), 3, "two that failed and one that did not: {seen}");
    assert!(prompts.iter().all(|body| body.to_string().contains("Good morning")), "{prompts:?}");
    home.llama_orch(&["health", "chat"]).expect_exit(0);
}

#[test]
fn an_engine_that_cannot_be_warmed_up_is_loading_and_describe_says_why() {
    let home = home_with_engine();
    let warm = json!({"warmup_enabled": true});
    let port = checked(&home, "chat", &warm, &json!({"FAKE_STATUS": "500"}));
    for daemon in [false, true] {
        if daemon {
            let address = format!("127.0.0.1:{}", free_port());
            home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
        }
        let run = home.llama_orch(&["up", "chat", "--timeout", "1"]);
        run.expect_exit(code(ExitCode::Starting));
        testkit::wait_for("the reason", Duration::from_secs(30), || {
            let described = home.llama_orch(&["describe", "chat", "--json"]).expect_exit(0).json();
            assert_eq!((&described["status"], &described["health"]), (&json!("starting"), &json!("loading")));
            described["last_error"].as_str().is_some_and(|error| error.contains("warm-up"))
        });
        let run = home.llama_orch(&["health", "chat", "--json"]);
        let answer = only_answer(run.expect_exit(code(ExitCode::Starting)));
        assert_eq!(answer["health"], "loading");
        assert!(answer["error"].as_str().unwrap().contains("HTTP 500"), "{answer}");
        if !daemon {
            home.llama_orch(&["down", "chat"]).expect_exit(0);
        }
    }
    set_fault(port, "FAKE_STATUS", "");
    testkit::wait_for("the instance to be ready", Duration::from_secs(30), || {
        home.llama_orch(&["health", "chat"]).exit_code == Some(0)
    });
    let described = home.llama_orch(&["describe", "chat", "--json"]).expect_exit(0).json();
    assert_eq!((&described["status"], &described["last_error"]), (&json!("running"), &Value::Null));
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
}
