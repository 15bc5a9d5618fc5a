//! Commands that read: they change nothing, and make nothing where there is nothing.

use testkit::{TempHome, cli_snapshot};

use crate::scene::{add_instance, home_with_engine, picture};

const READING: &[&[&str]] = &[
    &["ps"],
    &["ps", "--all", "--json"],
    &["health"],
    &["health", "--all", "--json"],
    &["events"],
    &["events", "--json", "--level", "warning"],
    &["describe", "chat"],
    &["logs", "chat"],
    &["config", "validate"],
    &["config", "validate", "chat", "--runtime"],
    &["config", "lint"],
    &["config", "show", "chat"],
    &["config", "schema"],
    &["up", "chat", "--dry-run"],
    &["daemon", "status"],
    &["engine", "list"],
    &["engine", "info"],
    &["engine", "devices"],
    &["completions", "bash"],
    &["down", "nobody"],
    &["up", "nobody"],
    &["quickstart", "--stop"],
];

#[test]
fn reading_a_home_changes_no_byte_of_it() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    let before = picture(home.path());
    for command in READING.iter().filter(|command| command[0] != "quickstart") {
        home.llama_orch(command);
        assert!(picture(home.path()) == before, "{command:?} has changed the home");
    }
}

#[test]
fn where_there_is_no_home_nothing_is_made() {
    let home = TempHome::new();
    let nowhere = home.scratch().join("nowhere");
    for command in READING {
        let run = home.llama_orch(&[&["--home", nowhere.to_str().unwrap()], *command].concat());
        assert!(!nowhere.exists(), "{command:?} has made a home\n{run}");
        assert_eq!(std::fs::read_dir(home.scratch()).unwrap().count(), 0, "{command:?}");
    }
}

#[test]
fn an_empty_home_has_no_instances() {
    let home = TempHome::new();
    cli_snapshot!(home, ["ps"], @r"
    exit code: 0
    ----- stdout -----
    NAME  PID  PORT  BACKEND  DEVICE  MODEL  STATUS  HEALTH  SLOTS  UPTIME  RESTARTS

    ----- stderr -----
    ");
    assert_eq!(home.llama_orch(&["ps", "--json"]).expect_exit(0).json(), serde_json::json!([]));
}

#[test]
fn stdout_holds_nothing_but_the_answer() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    for command in [
        &["ps", "--json"][..],
        &["health", "--all", "--json"],
        &["describe", "chat", "--json"],
        &["events", "--json"],
        &["config", "lint", "--json"],
        &["config", "show", "chat", "--json"],
        &["engine", "list", "--json"],
        &["engine", "info", "--json"],
        &["daemon", "status", "--json"],
        &["up", "chat", "--dry-run", "--json"],
        &["up", "nobody", "--json"],
        &["-vv", "ps", "--json"],
    ] {
        home.llama_orch(command).json();
    }
}

#[test]
fn the_home_is_chosen_by_flag_before_environment_and_told_when_asked() {
    let home = TempHome::new();
    let other = home.scratch().join("other");
    let run = home.llama_orch(&["-v", "ps", "--home", other.to_str().unwrap()]);
    assert!(
        run.expect_exit(0).stderr.contains(&format!("home: {} (chosen by --home)", other.display())),
        "{run}"
    );
    let run = home.llama_orch(&["-v", "ps"]);
    assert!(
        run.stderr.contains(&format!("home: {} (chosen by LLAMA_ORCH_HOME)", home.path().display())),
        "{run}"
    );
}

#[test]
fn an_instance_is_shown_before_its_first_start() {
    let home = TempHome::new();
    home.write_instance(
        "chat",
        &serde_json::json!({"name": "chat", "model": {"path": "m.gguf"}, "gpu": {"backend": "cuda", "layers": 99}}),
    );
    cli_snapshot!(home, ["ps"], @r"
    exit code: 0
    ----- stdout -----
    NAME  PID  PORT  BACKEND  DEVICE  MODEL   STATUS   HEALTH   SLOTS  UPTIME  RESTARTS
    chat  -    8001  cuda     0       m.gguf  stopped  unknown  -      -       0

    ----- stderr -----
    ");
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let home = TempHome::new();
    home.llama_orch(&["--help"]).expect_exit(0);
    home.llama_orch(&["--version"]).expect_exit(0);
    for wrong in [&["fly"][..], &["up"], &["ps", "--sideways"], &["events", "--level", "loud"], &[]] {
        home.llama_orch(wrong).expect_exit(2);
    }
    home.llama_orch(&["--server", "http://127.0.0.1:9", "logs", "chat"]).expect_exit(2);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = TempHome::new();
    let mut command = home.command("llama-orch");
    command
        .args(["config", "schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}
