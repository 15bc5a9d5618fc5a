//! The daemon as a service: what is written and run for it, and what a stop of it does to engines.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{ProgramRun, TempHome, free_port, wait_for};

use crate::scene::{add_instance, home_with_engine, is_alive, only_error, picture, row};

/// A home beside a `systemctl` that writes down how it was called, and fails where `script` says so.
struct Machine {
    home: TempHome,
    tools: PathBuf,
}

impl Machine {
    fn with_systemctl(script: &str) -> Self {
        Self::of(TempHome::new(), script)
    }

    fn of(home: TempHome, script: &str) -> Self {
        let tools = home.scratch().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let tool = tools.join("systemctl");
        let log = home.scratch().join("called").display().to_string();
        std::fs::write(&tool, format!("#!/bin/sh\necho \"$*\" >> {log}\n{script}\n")).unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { home, tools }
    }

    fn llama_orch(&self, arguments: &[&str]) -> ProgramRun {
        let mut command = self.home.command("llama-orch");
        command.args(arguments).env("PATH", format!("{}:/usr/bin:/bin", self.tools.display()));
        testkit::run(command)
    }

    fn unit(&self) -> PathBuf {
        self.home.scratch().join(".config/systemd/user/llama-orch.service")
    }

    fn called(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.home.scratch().join("called")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Nobody else has a service of the name.
const FREE: &str = r#"case "$*" in *" cat "*) exit 1;; esac"#;

#[test]
fn a_service_of_ones_own_is_written_enabled_started_and_removed() {
    let machine = Machine::with_systemctl(FREE);
    let run = machine.llama_orch(&["daemon", "install", "--user"]);
    assert!(run.expect_exit(0).stdout.contains("service llama-orch (systemd, user)"), "{run}");
    assert!(run.stderr.contains("loginctl enable-linger"), "{run}");
    let unit = std::fs::read_to_string(machine.unit()).unwrap();
    assert!(unit.contains(&format!("--home {} ", machine.home.path().display())), "{unit}");
    let steps = ["daemon-reload", "enable llama-orch.service", "start llama-orch.service"];
    assert_eq!(machine.called()[1..], steps.map(|step| format!("--user {step}")));

    let again = machine.llama_orch(&["daemon", "install", "--user"]);
    let error = only_error(again.expect_exit(14));
    assert!(error.contains("llama-orch"), "{again}");
    assert!(again.stderr.contains("daemon uninstall --user"), "{again}");
    assert!(again.stderr.contains("by hand it goes like this:\n1. write "), "{again}");
    assert_eq!(std::fs::read_to_string(machine.unit()).unwrap(), unit);

    machine.llama_orch(&["daemon", "uninstall", "--user"]).expect_exit(0);
    assert!(!machine.unit().exists());
    assert!(machine.called().contains(&"--user stop llama-orch.service".to_owned()));
    let gone = machine.llama_orch(&["daemon", "uninstall", "--user"]);
    assert!(only_error(gone.expect_exit(1)).contains("there is no user service"), "{gone}");
}

#[test]
fn a_dry_run_prints_all_and_does_nothing() {
    let machine = Machine::with_systemctl(FREE);
    let before = picture(machine.home.scratch().parent().unwrap());
    let system = machine.llama_orch(&["daemon", "install", "--dry-run", "--service-name", "models"]);
    assert!(system.expect_exit(0).stdout.contains("write /etc/systemd/system/models.service:"), "{system}");
    let run = machine.llama_orch(&["daemon", "install", "--user", "--dry-run", "--json"]);
    let steps = run.expect_exit(0).json()["steps"].clone();
    assert_eq!(steps[0]["write"], json!(machine.unit()));
    assert_eq!(steps[1]["run"], json!(["systemctl", "--user", "daemon-reload"]));
    let removal = machine.llama_orch(&["daemon", "uninstall", "--user", "--dry-run"]);
    assert!(removal.expect_exit(0).stdout.contains("stop llama-orch.service"), "{removal}");
    assert_eq!(picture(machine.home.scratch().parent().unwrap()), before);
}

#[test]
fn an_installation_that_fails_leaves_no_unit_and_tells_the_steps() {
    let failing = r#"case "$*" in *" cat "*) exit 1;; *" start "*) echo "no bus" >&2; exit 3;; esac"#;
    let machine = Machine::with_systemctl(failing);
    let run = machine.llama_orch(&["daemon", "install", "--user"]);
    let error = only_error(run.expect_exit(1));
    assert!(error.contains("start llama-orch.service` failed: no bus"), "{run}");
    assert!(run.stderr.contains("4. run systemctl --user start llama-orch.service"), "{run}");
    assert!(!machine.unit().exists());
    assert!(machine.called().contains(&"--user disable llama-orch.service".to_owned()));
}

#[test]
fn without_a_service_manager_the_command_line_for_another_is_told() {
    let home = TempHome::new();
    let mut command = home.command("llama-orch");
    command.args(["daemon", "install", "--user"]).env("PATH", home.scratch());
    let run = testkit::run(command);
    only_error(run.expect_exit(1));
    assert!(run.stderr.contains("daemon start --foreground"), "{run}");
    home.llama_orch(&["daemon", "install", "--service-name", "../x"]).expect_exit(2);
}

/// What the service manager would start, as the unit says.
fn start_as_service(machine: &Machine) -> Child {
    let run = machine.llama_orch(&["daemon", "install", "--user", "--dry-run", "--json"]);
    let steps: Value = run.expect_exit(0).json()["steps"].clone();
    let unit = steps[0]["text"].as_str().unwrap().to_owned();
    assert!(unit.contains("\nKillMode=process\n"), "{unit}");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().to_owned();
    let words: Vec<&str> = line.split(' ').collect();
    // The home's own settings stand for the variables that a terminal would have.
    let address = format!("127.0.0.1:{}", free_port());
    std::fs::write(machine.home.layout().settings(), format!("[orchestratord]\naddr = \"{address}\"\n"))
        .unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn daemon_answers(home: &TempHome) -> bool {
    home.llama_orch(&["daemon", "status"]).exit_code == Some(0)
}

#[test]
fn a_service_that_is_stopped_leaves_its_engines_and_finds_them_again() {
    let machine = Machine::of(home_with_engine(), FREE);
    add_instance(&machine.home, "chat", &[]);
    let mut service = start_as_service(&machine);
    wait_for("the daemon to answer", Duration::from_secs(30), || daemon_answers(&machine.home));
    machine.home.llama_orch(&["up", "chat"]).expect_exit(0);
    let running = row(&machine.home, "chat")["pid"].clone();

    // `KillMode=process`: the main process alone is asked to end.
    let mut kill = Command::new("kill");
    kill.args(["-TERM", &service.id().to_string()]);
    testkit::run(kill).expect_exit(0);
    let ended = testkit::wait_for_value("the service to end", Duration::from_secs(30), || {
        service.try_wait().unwrap()
    });
    assert!(ended.success(), "a stop is no failure that would have it started again: {ended}");
    assert!(is_alive(&running));

    let mut service = start_as_service(&machine);
    wait_for("the daemon to answer", Duration::from_secs(30), || daemon_answers(&machine.home));
    assert_eq!(row(&machine.home, "chat")["pid"], running);
    machine.home.llama_orch(&["down", "chat"]).expect_exit(0);
    machine.home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(service.wait().unwrap().success());
}

#[test]
fn beside_a_daemon_that_runs_the_service_is_not_started() {
    let machine = Machine::with_systemctl(FREE);
    let address = format!("127.0.0.1:{}", free_port());
    machine.home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
    let run = machine.llama_orch(&["daemon", "install", "--user", "--json"]);
    assert_eq!(run.expect_exit(0).json()["started"], false);
    assert!(!machine.called().iter().any(|call| call.contains("start")), "{:?}", machine.called());
    assert!(run.stderr.contains("runs already"), "{run}");
    machine.home.llama_orch(&["daemon", "stop"]).expect_exit(0);
}

#[test]
fn what_is_always_wanted_starts_with_the_daemon() {
    let home = home_with_engine();
    let model = home.tiny_model();
    for (name, load) in [("always", "always"), ("manual", "manual")] {
        home.write_instance(
            name,
            &json!({
                "name": name,
                "model": {"path": model, "context_size": 2048, "threads": 1},
                "server": {"port": free_port()},
                "lifecycle": {"load": load},
            }),
        );
    }
    let address = format!("127.0.0.1:{}", free_port());
    home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
    wait_for("what is always wanted to run", Duration::from_secs(30), || {
        row(&home, "always")["status"] == "running"
    });
    assert_eq!(row(&home, "manual")["status"], "stopped");
    home.llama_orch(&["down", "--all"]).expect_exit(0);
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
}
