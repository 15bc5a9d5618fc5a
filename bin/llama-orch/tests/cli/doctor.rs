//! `doctor`: finds what is wrong, says how it is mended, and touches nothing.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{ProgramRun, TempHome, free_port};

use crate::scene::{add_instance, home_with_engine, picture};

/// The findings of one check.
fn of<'a>(document: &'a Value, check: &str) -> Vec<&'a Value> {
    document["checks"].as_array().unwrap().iter().filter(|one| one["check"] == check).collect()
}

/// With an address that nobody has.
fn examine(home: &TempHome) -> ProgramRun {
    let mut command = home.command("llama-orch");
    command.args(["doctor", "--json"]).env("ORCHESTRATORD_ADDR", format!("127.0.0.1:{}", free_port()));
    command.env("PATH", "/usr/bin:/bin");
    testkit::run(command)
}

#[test]
fn a_home_that_is_well_is_told_so_and_no_byte_of_it_changes() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["config", "init"]).expect_exit(0);
    let before = picture(home.scratch().parent().unwrap());
    let document = examine(&home).expect_exit(0).json();
    assert_eq!(picture(home.scratch().parent().unwrap()), before);
    assert_eq!(document["healthy"], true);
    for check in [
        "home", "disk", "settings", "configs", "ports", "engine", "gpu", "daemon", "gateway", "database",
        "clock", "logs",
    ] {
        assert!(!of(&document, check).is_empty(), "{check} is missing in {document}");
        assert!(of(&document, check).iter().all(|one| one["severity"] != "error"), "{document}");
    }
    let home_check = of(&document, "home")[0]["message"].as_str().unwrap();
    assert!(home_check.ends_with("chosen by LLAMA_ORCH_HOME"), "{home_check}");
}

#[test]
fn without_a_home_it_works_and_makes_none() {
    let home = TempHome::new();
    std::fs::remove_dir(home.path()).unwrap();
    let run = examine(&home);
    let document = run.json();
    assert!(!home.path().exists());
    assert_eq!(of(&document, "home")[0]["severity"], "info");
    // Whether there is an engine is another matter.
    let errors = document["checks"].as_array().unwrap().iter().filter(|one| one["severity"] == "error");
    assert!(errors.clone().all(|one| one["check"] == "engine"), "{document}");
    run.expect_exit(i32::from(errors.count() > 0));
}

#[test]
fn everything_that_is_wrong_is_told_with_its_mend() {
    let home = home_with_engine();
    let port = add_instance(&home, "chat", &[]);
    home.llama_orch(&["config", "init"]).expect_exit(0);
    let _foreign = TcpListener::bind(("127.0.0.1", port)).unwrap();
    home.write_instance("broken", &json!({"name": "broken"}));
    std::fs::write(home.layout().settings(), "[orchestratord]\nadress = 1\n").unwrap();
    std::fs::write(home.layout().database(), "no database").unwrap();
    std::fs::set_permissions(home.layout().logs(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = std::fs::File::create(home.layout().daemon_log()).unwrap();
    log.set_len(2 * 1024 * 1024 * 1024).unwrap();
    let run = examine(&home);
    let document = run.expect_exit(1).json();
    assert_eq!(document["healthy"], false);
    for (check, severity, words) in [
        ("settings", "error", "adress"),
        ("database", "error", "state.sqlite"),
        ("configs", "error", "errors: 1"),
        ("home", "warning", "is open to other users"),
        ("logs", "warning", "they take"),
    ] {
        let found = of(&document, check);
        let one = found.iter().find(|one| one["severity"] == severity);
        let one = one.unwrap_or_else(|| panic!("no {severity} of {check} in {document}"));
        assert!(one["message"].as_str().unwrap().contains(words), "{one}");
        assert!(!one["mend"].is_null() || check == "settings", "{one}");
    }
    let text = home.llama_orch(&["doctor"]);
    assert!(text.expect_exit(1).stdout.contains("mend: "), "{text}");
}

#[test]
fn a_port_that_somebody_else_has_is_told_with_its_holder() {
    let home = home_with_engine();
    let port = add_instance(&home, "chat", &[]);
    let foreign = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut command = home.command("llama-orch");
    command.args(["doctor", "--json"]).env("ORCHESTRATORD_ADDR", format!("127.0.0.1:{port}"));
    let document = testkit::run(command).expect_exit(1).json();
    let holder = format!("pid {}", std::process::id());
    for (check, severity) in [("ports", "warning"), ("gateway", "error")] {
        let one = of(&document, check)[0];
        assert_eq!(one["severity"], severity);
        assert!(one["message"].as_str().unwrap().contains(&holder), "{one}");
    }
    drop(foreign);
}

#[test]
fn an_engine_that_hangs_does_not_hang_the_doctor() {
    let home = TempHome::new();
    let engine = home.scratch().join("llama-server");
    std::fs::write(&engine, "#!/bin/sh\nsleep 1000\n").unwrap();
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
    let begun = Instant::now();
    let mut command = home.command("llama-orch");
    command.args(["doctor", "--json"]).env("LLAMA_SERVER", &engine);
    let document = testkit::run(command).expect_exit(1).json();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let one = of(&document, "engine")[0];
    assert!(one["severity"] == "error" && one["mend"].as_str().unwrap().contains("engine install"), "{one}");
}

#[test]
fn a_daemon_is_found_alive_lost_or_of_another_version() {
    let home = home_with_engine();
    let address = format!("127.0.0.1:{}", free_port());
    home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
    let document = examine(&home).json();
    assert!(of(&document, "daemon")[0]["message"].as_str().unwrap().contains(&address), "{document}");

    let file = home.layout().daemon_file();
    let text = std::fs::read_to_string(&file).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["version"] = json!("0.0.1");
    std::fs::write(&file, other.to_string()).unwrap();
    let one = of(&examine(&home).json(), "daemon")[0].clone();
    assert_eq!((&one["severity"], one["mend"].is_null()), (&json!("warning"), false), "{one}");

    std::fs::remove_file(&file).unwrap();
    let document = examine(&home).expect_exit(1).json();
    assert_eq!(of(&document, "daemon")[0]["severity"], "error");
    std::fs::write(&file, text).unwrap();
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
}

#[test]
fn a_lock_that_is_held_for_long_is_told() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let path = home.layout().locks().join("chat.lock");
    let _guard = engine_process::acquire(&path, "up chat", Duration::ZERO).unwrap();
    let document = examine(&home).json();
    assert!(of(&document, "locks").is_empty(), "{document}");
    let mut holder: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    holder["started_at"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&path, holder.to_string()).unwrap();
    let document = examine(&home).json();
    let one = of(&document, "locks")[0];
    assert!(one["message"].as_str().unwrap().contains(&format!("pid {}", std::process::id())), "{one}");
    assert!(one["mend"].as_str().unwrap().contains("--force-unlock"), "{one}");
}
