//! Engines that the system does not let us look at, or does not let us signal.

#![cfg(target_os = "linux")]

mod support;

use serde_json::{Value, json};
use support::SOON;
use support::home::Home;
use support::processes::{is_alive, kill_hard};
use testkit::{ProgramRun, wait_for, without_capabilities};

/// With these an administrator may look at every process, and signal it.
const LOOK: &[&str] = &["sys_ptrace"];
const LOOK_AND_SIGNAL: &[&str] = &["sys_ptrace", "kill"];

struct Denied {
    home: Home,
    powers: &'static [&'static str],
}

impl Denied {
    fn with_engine(environment: &Value, powers: &'static [&'static str]) -> Self {
        let home = Home::fake();
        home.instance("a", &json!({"env": environment}));
        Self { home, powers }
    }

    fn run(&self, arguments: &[&str]) -> ProgramRun {
        testkit::run(without_capabilities(&self.home.command(arguments), self.powers))
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> ProgramRun {
        let run = self.run(arguments);
        run.expect_exit(0);
        run
    }

    fn process(&self) -> Value {
        self.ok(&["describe", "a", "--json"]).json()["process"].clone()
    }

    fn pid(&self) -> u32 {
        support::home::pid_of(&self.process()["pid"])
    }

    fn told(&self) -> usize {
        let events = self.home.events("a");
        events.iter().filter(|event| event["meta"]["denied"] == true).count()
    }
}

/// Whether a process that was let go of its powers is really denied the look; says so where it is not.
fn is_denied(scene: &Denied) -> bool {
    let reason = scene.process()["reason"].as_str().unwrap_or_default().to_owned();
    let denied = reason.contains("cannot be seen");
    if !denied {
        eprintln!("SKIPPED: this system shows every process to everybody ({reason})");
    }
    denied
}

fn has_setpriv() -> bool {
    let found = !nix::unistd::geteuid().is_root()
        || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join("setpriv").is_file());
    if !found {
        eprintln!("SKIPPED: root needs setpriv to be denied anything");
    }
    found
}

#[test]
fn an_engine_that_may_not_be_looked_at_is_shown_adopted_and_stopped_and_told_of_once() {
    let scene = Denied::with_engine(&json!({"FAKE_HIDDEN": "1"}), LOOK);
    if !has_setpriv() {
        return;
    }
    scene.ok(&["up", "a"]);
    if !is_denied(&scene) {
        return;
    }
    let pid = scene.pid();
    let seen = scene.ok(&["ps", "--json"]);
    assert_eq!((&seen.json()[0]["status"], &seen.json()[0]["pid"]), (&json!("running"), &json!(pid)));
    let warnings = seen.stderr.matches("taken for ours").count();
    assert_eq!(warnings, 1, "without a daemon the command says it, once\n{seen}");
    assert_eq!(scene.told(), 0, "a look writes nothing");

    for _ in 0..2 {
        scene.ok(&["daemon", "start"]);
        wait_for("the daemon to tell it", SOON, || scene.told() == 1);
        kill_hard(scene.home.daemon().pid);
    }
    // Its shim is gone, too: it gets another one all the same.
    kill_hard(scene.home.shim_pid("a"));
    scene.ok(&["daemon", "start"]);
    wait_for("a new shim", SOON, || scene.home.event_types("a").contains(&"orphan_adopted".to_owned()));
    assert_eq!(scene.pid(), pid);

    scene.ok(&["down", "a"]);
    wait_for("the engine to be gone", SOON, || !is_alive(pid));
    assert_eq!(scene.told(), 1, "each engine is told of once, by however many daemons");
}

#[test]
fn an_engine_that_may_not_be_looked_at_and_is_written_down_nowhere_is_left_alone() {
    let scene = Denied::with_engine(&json!({"FAKE_HIDDEN": "1"}), LOOK);
    if !has_setpriv() {
        return;
    }
    scene.ok(&["up", "a"]);
    if !is_denied(&scene) {
        return;
    }
    let pid = scene.pid();
    kill_hard(scene.home.shim_pid("a"));
    std::fs::remove_dir_all(scene.home.path().join("run")).expect("the home is writable");
    for entry in std::fs::read_dir(scene.home.path().join("state/locks")).expect("it has locks").flatten() {
        std::fs::remove_file(entry.path()).expect("the home is writable");
    }
    let down = scene.run(&["down", "a"]);
    assert!(is_alive(pid), "nothing may be signalled\n{down}");
    assert!(scene.home.event_types("a").contains(&"pid_mismatch".to_owned()), "{down}");
    kill_hard(pid);
}

#[test]
fn an_engine_that_may_not_be_signalled_is_named_with_what_to_do_and_exit_code_5() {
    if !nix::unistd::geteuid().is_root() || !has_setpriv() {
        eprintln!("SKIPPED: only root can start an engine of another user");
        return;
    }
    let scene = Denied::with_engine(&json!({"FAKE_USER": "65534"}), LOOK_AND_SIGNAL);
    scene.ok(&["up", "a"]);
    if !is_denied(&scene) {
        return;
    }
    let pid = scene.pid();
    let down = scene.run(&["down", "a"]);
    down.expect_exit(5);
    for words in [format!("cannot signal pid {pid}"), "as the user that it runs as".to_owned()] {
        assert!(down.stderr.contains(&words), "{words}\n{down}");
    }
    assert!(is_alive(pid));
    kill_hard(pid);
}
