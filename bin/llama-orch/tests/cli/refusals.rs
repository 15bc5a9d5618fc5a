//! What cannot be done is said in one line, with the exit code of its kind, and nothing is left behind.

use std::net::TcpListener;

use orch_core::ExitCode;
use serde_json::json;
use testkit::{TempHome, cli_snapshot, free_port};

use crate::scene::{add_instance, home_with_engine, is_alive, only_error, row};

fn code(exit: ExitCode) -> i32 {
    i32::from(exit.number())
}

#[test]
fn an_unknown_name_is_told_in_one_line() {
    let home = TempHome::new();
    cli_snapshot!(home, ["up", "nobody"], @r#"
    exit code: 13
    ----- stdout -----

    ----- stderr -----
    error: there is no instance "nobody"
    hint: make one with `llama-orch init`
    "#);
    for command in [
        &["down", "nobody"][..],
        &["restart", "nobody"],
        &["rm", "nobody"],
        &["describe", "nobody"],
        &["logs", "nobody"],
        &["health", "nobody"],
        &["events", "--instance", "nobody"],
        &["config", "show", "nobody"],
        &["config", "set", "nobody", "server.port=0"],
    ] {
        let run = home.llama_orch(command);
        only_error(run.expect_exit(code(ExitCode::InstanceNotFound)));
    }
}

#[test]
fn without_an_engine_nothing_starts() {
    let home = TempHome::new();
    add_instance(&home, "chat", &[]);
    let mut command = home.command("llama-orch");
    command.args(["up", "chat"]).env("PATH", home.scratch());
    let run = testkit::run(command);
    let error = only_error(run.expect_exit(code(ExitCode::EngineNotFound)));
    assert!(error.contains("llama-server"), "{run}");
    assert_eq!(row(&home, "chat")["desired_state"], "stopped");
}

#[test]
fn a_pinned_engine_that_is_missing_is_never_replaced() {
    let home = home_with_engine();
    let model = home.tiny_model();
    home.write_instance(
        "chat",
        &json!({"name": "chat", "model": {"path": model}, "binary": {"version": "b1"}}),
    );
    home.llama_orch(&["up", "chat"]).expect_exit(code(ExitCode::EngineNotFound));
    assert_eq!(row(&home, "chat")["pid"], json!(null));
}

#[test]
fn broken_configs_are_told_apart_and_stop_nobody_else() {
    let home = home_with_engine();
    add_instance(&home, "good", &[]);
    let broken = home.write_instance("torn", &json!({}));
    std::fs::write(&broken, "{\"name\": \"torn\",").unwrap();
    home.write_instance(
        "wrong",
        &json!({"name": "wrong", "model": {"path": "m.gguf"}, "server": {"port": "many"}}),
    );

    let run = home.llama_orch(&["up", "torn"]);
    let error = only_error(run.expect_exit(code(ExitCode::ConfigParse)));
    assert!(error.contains("torn/config.json"), "{error}");
    let run = home.llama_orch(&["up", "wrong"]);
    let error = only_error(run.expect_exit(code(ExitCode::ConfigInvalid)));
    assert!(error.contains("server.port"), "{error}");

    let run = home.llama_orch(&["up", "torn", "good", "wrong"]);
    run.expect_exit(code(ExitCode::ConfigParse));
    assert_eq!(row(&home, "good")["health"], "healthy");
    let run = home.llama_orch(&["ps"]);
    assert_eq!(run.expect_exit(0).stderr.matches("warning: ").count(), 2, "{run}");
    let rows = home.llama_orch(&["ps", "--all", "--json"]).expect_exit(0).json();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    home.llama_orch(&["config", "validate"]).expect_exit(code(ExitCode::ConfigInvalid));
    home.llama_orch(&["config", "validate", broken.to_str().unwrap()])
        .expect_exit(code(ExitCode::ConfigParse));
    home.llama_orch(&["config", "validate", "good"]).expect_exit(0);
    home.llama_orch(&["config", "validate", "missing.json"]).expect_exit(code(ExitCode::ConfigNotFound));
}

#[test]
fn a_port_that_somebody_holds_is_told_with_his_name_and_nothing_is_started() {
    let home = home_with_engine();
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port();
    let model = home.tiny_model();
    home.write_instance("chat", &json!({"name": "chat", "model": {"path": model}, "server": {"port": port}}));
    let run = home.llama_orch(&["up", "chat"]);
    let error = only_error(run.expect_exit(code(ExitCode::PortInUse)));
    assert!(error.contains(&format!("port {port}")), "{error}");
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(!home.layout().instance_logs(&"chat".parse().unwrap()).join("stderr.log").exists());
    let refused = row(&home, "chat");
    assert_eq!((&refused["pid"], &refused["desired_state"]), (&json!(null), &json!("stopped")));
    drop(holder);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
}

#[test]
fn of_several_instances_an_error_names_the_one_it_is_about() {
    let home = home_with_engine();
    add_instance(&home, "good", &[]);
    let model = home.tiny_model();
    for name in ["lost", "gone"] {
        let config = json!({"name": name, "model": {"path": model}, "binary": {"version": "b1"}});
        home.write_instance(name, &config);
    }
    let run = home.llama_orch(&["up", "good", "lost", "gone", "nobody"]);
    run.expect_exit(code(ExitCode::EngineNotFound));
    for error in ["error: lost: ", "error: gone: ", "error: there is no instance \"nobody\""] {
        assert!(run.stderr.contains(error), "{error}: {run}");
    }
    home.llama_orch(&["down", "good"]).expect_exit(0);
}

#[test]
fn a_model_that_is_missing_or_no_model_is_refused() {
    let home = home_with_engine();
    home.write_instance("missing", &json!({"name": "missing", "model": {"path": "/nowhere/m.gguf"}}));
    let fake = home.scratch().join("fake.gguf");
    std::fs::write(&fake, "not a model").unwrap();
    home.write_instance(
        "fake",
        &json!({"name": "fake", "model": {"path": fake}, "server": {"port": free_port()}}),
    );
    home.llama_orch(&["up", "missing"]).expect_exit(code(ExitCode::ModelNotFound));
    home.llama_orch(&["up", "fake"]).expect_exit(code(ExitCode::ModelInvalid));
}

#[test]
fn the_first_failure_gives_the_code_and_all_are_tried() {
    let home = home_with_engine();
    add_instance(&home, "a", &[]);
    add_instance(&home, "b", &[]);
    home.llama_orch(&["up", "a"]).expect_exit(0);
    let run = home.llama_orch(&["up", "a", "nobody", "b", "--json"]);
    run.expect_exit(code(ExitCode::AlreadyRunning));
    let codes: Vec<i64> =
        run.json().as_array().unwrap().iter().map(|one| one["exit_code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [21, 13, 0]);
    assert_eq!(row(&home, "b")["status"], "running");
}

#[test]
fn what_is_so_already_has_codes_of_its_own() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["down", "chat"]).expect_exit(code(ExitCode::NotRunning));
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["up", "chat"]).expect_exit(code(ExitCode::AlreadyRunning));
    home.llama_orch(&["up", "--all"]).expect_exit(0);
    home.llama_orch(&["rm", "chat"]).expect_exit(code(ExitCode::AlreadyRunning));
    let pid = row(&home, "chat")["pid"].clone();
    home.llama_orch(&["rm", "chat", "--force"]).expect_exit(0);
    assert!(!is_alive(&pid));
    home.llama_orch(&["down", "--all"]).expect_exit(0);
}

#[test]
fn an_engine_that_ends_while_it_loads_tells_its_last_words() {
    let home = home_with_engine();
    add_instance(
        &home,
        "chat",
        &[("FAKE_EXIT_AT", "loaded"), ("FAKE_EXIT_CODE", "7"), ("FAKE_LAST_WORDS", "no room for the cache")],
    );
    let run = home.llama_orch(&["up", "chat"]);
    let error = only_error(run.expect_exit(code(ExitCode::StartFailed)));
    assert!(error.contains("no room for the cache"), "{error}");
    home.llama_orch(&["health", "chat"]).expect_exit(code(ExitCode::Crashed));
}

#[test]
fn a_start_that_takes_longer_than_it_may_is_left_running() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[("FAKE_NEVER_READY", "1")]);
    home.llama_orch(&["up", "chat", "--timeout", "0.3"]).expect_exit(code(ExitCode::Starting));
    let loading = row(&home, "chat");
    assert!(is_alive(&loading["pid"]));
    assert_eq!(loading["status"], "starting");
    home.llama_orch(&["up", "chat"]).expect_exit(code(ExitCode::Starting));
    home.llama_orch(&["health", "chat"]).expect_exit(code(ExitCode::Starting));
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    assert!(!is_alive(&loading["pid"]));
}

#[test]
fn a_config_that_cannot_be_read_for_lack_of_rights_says_so() {
    let home = TempHome::new();
    std::fs::write(home.path().join("instances"), "a file, not a folder").unwrap();
    let run = home.llama_orch(&["ps"]);
    assert_ne!(run.exit_code, Some(0));
    only_error(&run);
}

#[test]
fn a_database_of_the_future_is_left_alone() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    std::fs::write(home.layout().database(), "this is not a database").unwrap();
    for command in [&["ps"][..], &["up", "chat"], &["events"]] {
        let run = home.llama_orch(command);
        only_error(run.expect_exit(code(ExitCode::StateUnusable)));
    }
    assert_eq!(std::fs::read_to_string(home.layout().database()).unwrap(), "this is not a database");
}
