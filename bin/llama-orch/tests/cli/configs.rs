//! `config`: checked, shown, changed.

use serde_json::json;
use testkit::{TempHome, cli_snapshot};

use crate::scene::{add_instance, home_with_engine};

#[test]
fn lint_names_every_claim_to_a_port() {
    let home = TempHome::new();
    let model = home.tiny_model();
    for name in ["a", "b"] {
        home.write_instance(
            name,
            &json!({
                "name": name,
                "model": {"path": model, "threads": 1, "context_size": 2048},
                "server": {"port": 8155},
            }),
        );
    }
    cli_snapshot!(home, ["config", "validate"], @r"
    exit code: 11
    ----- stdout -----
    error    a: server.port: port [PORT] is also claimed by b (give each instance its own port, or 0)
    error    b: server.port: port [PORT] is also claimed by a (give each instance its own port, or 0)
    not valid: 2 errors, 0 warnings

    ----- stderr -----
    ");
    let report = home.llama_orch(&["config", "lint", "--json"]).expect_exit(11).json();
    assert_eq!(report["valid"], false);
    assert!(report["findings"].as_array().unwrap().iter().any(|finding| finding["field"] == "server.port"));
}

#[test]
fn a_home_without_instances_is_valid() {
    let home = TempHome::new();
    cli_snapshot!(home, ["config", "lint"], @r"
    exit code: 0
    ----- stdout -----
    info     there are no instances (make one with `llama-orch init`)
    valid: 0 errors, 0 warnings

    ----- stderr -----
    ");
}

#[test]
fn lint_knows_the_engines_flags_and_devices() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["config", "set", "chat", "args=[\"--no-such-flag\"]", "gpu.backend=cuda"])
        .expect_exit(0);
    let report = home.llama_orch(&["config", "lint", "--json"]).expect_exit(11).json();
    let fields: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["field"].as_str())
        .collect();
    assert!(fields.iter().any(|field| field.starts_with("args")), "{report}");
    assert!(fields.contains(&"gpu.device_id"), "{report}");
    home.llama_orch(&["config", "validate"]).expect_exit(0);
    home.llama_orch(&["config", "validate", "--runtime"]).expect_exit(11);
    home.llama_orch(&["up", "chat"]).expect_exit(11);
}

#[test]
fn values_are_shown_with_where_they_come_from() {
    let home = TempHome::new();
    home.write_instance(
        "chat",
        &json!({"name": "chat", "model": {"path": "m.gguf"}, "server": {"port": 8155}}),
    );
    let shown = home.llama_orch(&["config", "show", "chat", "--json"]).expect_exit(0).json();
    assert_eq!(shown["origins"]["server.port"], "file");
    assert_eq!(shown["origins"]["model.context_size"], "default");
    assert_eq!(shown["config"]["model"]["context_size"], 4096);
}

#[test]
fn fields_are_set_with_validation_and_the_rest_is_kept() {
    let home = TempHome::new();
    let path = home.write_instance(
        "chat",
        &json!({"name": "chat", "model": {"path": "m.gguf"}, "server": {"port": 8155}, "mine": {"kept": [1, 2]}}),
    );
    home.write_instance(
        "other",
        &json!({"name": "other", "model": {"path": "m.gguf"}, "server": {"port": 8156}}),
    );
    home.llama_orch(&["config", "set", "chat", "server.parallel=4", "env.GREETING=hello"]).expect_exit(0);
    let before = std::fs::read_to_string(&path).unwrap();
    for (assignment, exit) in [
        ("server.port=many", 11),
        ("server.port=8156", 11),
        ("name=other-name", 11),
        ("model.context_size=1", 11),
        ("server.colour=red", 2),
        ("server.port", 2),
    ] {
        home.llama_orch(&["config", "set", "chat", "tags=new", assignment]).expect_exit(exit);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before, "{assignment} has changed the file");
    }
    let document: serde_json::Value = serde_json::from_str(&before).unwrap();
    assert_eq!(document["server"]["parallel"], 4);
    assert_eq!(document["env"]["GREETING"], "hello");
    assert_eq!(document["mine"]["kept"], json!([1, 2]));
}

#[test]
fn a_change_tells_whether_the_running_engine_must_restart_for_it() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let told = |assignment: &str| {
        let run = home.llama_orch(&["config", "set", "chat", assignment]);
        run.expect_exit(0);
        run.stderr.trim().to_owned()
    };
    assert_eq!(told("tags=stopped"), "");
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    assert_eq!(told("tags=live"), "the running engine needs no restart for it");
    assert_eq!(told("server.parallel=2"), "the running engine hears of it at: llama-orch restart chat");
    home.llama_orch(&["restart", "chat"]).expect_exit(0);
    assert_eq!(told("aliases=gpt-4o"), "the running engine needs no restart for it");
}

#[test]
fn the_database_is_made_anew_only_when_forced_and_never_without_a_backup() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["config", "init"]).expect_exit(0);
    assert!(home.llama_orch(&["events"]).stdout.contains("engine_installed"));
    std::fs::write(home.layout().database(), "damaged").unwrap();
    home.llama_orch(&["config", "init"]).expect_exit(34);
    home.llama_orch(&["config", "init", "--force"]).expect_exit(0);
    home.llama_orch(&["config", "init", "--force"]).expect_exit(0);
    let backup = home.layout().state().join("state.sqlite.backup");
    assert_eq!(std::fs::read_to_string(backup).unwrap(), "damaged");
    assert!(home.layout().state().join("state.sqlite.backup.1").exists());
    home.llama_orch(&["up", "chat"]).expect_exit(0);
}

#[test]
fn an_engine_outlives_the_database_that_knew_it() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let pid = crate::scene::row(&home, "chat")["pid"].clone();
    home.llama_orch(&["config", "init", "--force"]).expect_exit(0);
    assert_eq!(crate::scene::row(&home, "chat")["pid"], pid);
    home.llama_orch(&["up", "chat"]).expect_exit(21);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    assert!(!crate::scene::is_alive(&pid));
}

#[test]
fn schemas_are_json() {
    let home = TempHome::new();
    for kind in ["instance", "home"] {
        let schema = home.llama_orch(&["config", "schema", "--kind", kind]).expect_exit(0).json();
        assert_eq!(schema["type"], "object");
    }
}
