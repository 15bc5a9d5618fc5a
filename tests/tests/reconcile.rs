//! What a daemon that begins makes of what is wanted and what it finds: one test for each row of the table.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::TcpListener;

use serde_json::{Value, json};
use support::SOON;
use support::database::sql;
use support::home::{Daemon, Home, pid_of};
use support::processes::{engines_in, is_alive, kill_hard};
use testkit::{RunningEngine, wait_for};

/// A restart that no test waits for: what the reconciler decided can be looked at in peace.
const PATIENT: &str = r#"{"restart_policy": {"initial_delay": 60, "jitter": 0}}"#;

fn patient() -> Value {
    serde_json::from_str(PATIENT).unwrap()
}

/// Starts `a`, then ends the daemon without a word, and whatever else the test names.
fn left_alone(home: &Home, config: &Value) -> u32 {
    home.instance("a", config);
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    home.shim_pid("a");
    let pid = home.engine_pid("a");
    end(&daemon);
    pid
}

fn end(daemon: &Daemon) {
    kill_hard(daemon.pid);
    wait_for("the daemon to be gone", SOON, || !is_alive(daemon.pid));
}

/// Engine and shim at once, so that nothing tells how it ended; or the engine alone.
fn end_engine(home: &Home, pid: u32, with_shim: bool) {
    let shim = home.shim_pid("a");
    if with_shim {
        kill_hard(shim);
    }
    kill_hard(pid);
    wait_for("both to be gone", SOON, || !is_alive(pid) && !is_alive(shim));
}

fn last_event(home: &Home) -> u64 {
    let events = home.json(&["events", "--limit", "1", "--json"]);
    events[0]["id"].as_u64().unwrap_or(0)
}

/// What was told after the event with this id, oldest first, but for the daemon's own coming and going and what
/// probes find.
fn told_since(home: &Home, id: u64) -> Vec<Value> {
    let events = home.json(&["events", "--limit", "500", "--json"]);
    let mut events = events.as_array().unwrap().clone();
    events.retain(|event| {
        let kind = event["event_type"].as_str().unwrap();
        event["id"].as_u64() > Some(id)
            && !["daemon_started", "daemon_stopped", "health_changed"].contains(&kind)
    });
    events.reverse();
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event_type"].as_str()).collect()
}

/// Starts a daemon and waits until it has decided about `a`; the types of the events of that decision.
#[track_caller]
fn reconciled(home: &Home, decided: impl Fn(&Value) -> bool) -> Vec<Value> {
    let before = last_event(home);
    home.start_daemon();
    wait_for("the reconciler's decision", SOON, || decided(&home.ps("a")));
    told_since(home, before)
}

#[test]
fn wanted_and_running_nothing_is_done_and_nothing_told() {
    let home = Home::fake();
    let pid = left_alone(&home, &json!({}));
    let told = reconciled(&home, |row| row["health"] == "healthy" && !row["slots"].is_null());
    assert_eq!(types(&told), [""; 0]);
    assert_eq!(home.engine_pid("a"), pid);
}

#[test]
fn wanted_and_gone_it_is_started_again_by_policy() {
    let home = Home::fake();
    let pid = left_alone(&home, &patient());
    end_engine(&home, pid, false);
    let told = reconciled(&home, |row| !row["next_restart_at"].is_null());
    assert_eq!(types(&told), ["crashed", "restart_scheduled"]);
    assert!(told[0]["message"].as_str().unwrap().contains("signal 9"), "{told:?}");
    assert_eq!((&told[1]["meta"]["attempt"], &told[1]["meta"]["delay_ms"]), (&json!(1), &json!(60_000)));
    assert_eq!(home.ps("a")["status"], "starting");
}

#[test]
fn wanted_with_somebody_else_s_pid_in_the_row_the_row_is_cleared_and_it_is_started_by_policy() {
    let home = Home::fake();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = RunningEngine::fake(elsewhere.path(), &[]);
    let pid = left_alone(&home, &patient());
    end_engine(&home, pid, true);
    sql(home.path(), &format!("UPDATE runtime SET pid = {}, port = {}", stranger.pid(), stranger.port()));
    let told = reconciled(&home, |row| !row["next_restart_at"].is_null());
    assert_eq!(types(&told), ["pid_mismatch"]);
    assert_eq!(told[0]["meta"]["attempt"], 1);
    assert_eq!(sql(home.path(), "SELECT pid IS NULL, restart_attempts FROM runtime"), "1|1");
    assert!(is_alive(stranger.pid()));
}

#[test]
fn an_engine_whose_row_was_lost_between_spawn_and_save_is_adopted() {
    // Ready and known by its handoff file; loading and known by its lock alone.
    for config in [json!({}), json!({"env": {"FAKE_NEVER_READY": "1"}})] {
        let home = Home::fake();
        home.instance("a", &config);
        let daemon = home.start_daemon();
        home.ok(&["up", "a", "--no-wait"]);
        wait_for("the engine", SOON, || engines_in(home.path()).len() == 1);
        let pid = engines_in(home.path())[0].0;
        if config == json!({}) {
            home.shim_pid("a");
        }
        end(&daemon);
        sql(home.path(), "DELETE FROM runtime");
        let told = reconciled(&home, |row| row["pid"] == pid);
        wait_for("the row", SOON, || sql(home.path(), "SELECT pid FROM runtime") == pid.to_string());
        assert_eq!(
            types(&told_since(&home, told.first().map_or(0, |it| it["id"].as_u64().unwrap() - 1))).first(),
            Some(&"orphan_adopted")
        );
        let adopted = home.event_types("a").iter().filter(|it| *it == "orphan_adopted").count();
        assert_eq!((adopted, engines_in(home.path()).len()), (1, 1));
    }
}

#[test]
fn wanted_with_a_foreign_process_on_its_port_it_waits_by_policy_and_says_who_holds_it() {
    let home = Home::fake();
    let policy =
        json!({"restart_policy": {"initial_delay": 0.3, "max_delay": 0.3, "jitter": 0, "max_retries": 100}});
    let port = home.instance("a", &policy);
    home.start_daemon();
    home.ok(&["up", "a"]);
    home.shim_pid("a");
    let (daemon, pid) = (home.daemon(), home.engine_pid("a"));
    end(&daemon);
    end_engine(&home, pid, true);
    // As after a boot: wanted, not running, and somebody was quicker.
    sql(home.path(), "UPDATE runtime SET pid = NULL, status = 'stopped'");
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let told =
        reconciled(&home, |row| row["last_error"].as_str().is_some_and(|it| it.contains("is held by")));
    assert_eq!(types(&told).first(), Some(&"port_collision"), "{told:?}");
    assert!(types(&told).iter().all(|kind| *kind == "port_collision"), "{told:?}");
    let message = told[0]["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("(pid {})", std::process::id())) && message.contains("reconcile"),
        "{message}"
    );
    assert_eq!((&told[0]["meta"]["attempt"], &home.ps("a")["desired_state"]), (&json!(1), &json!("running")));
    wait_for("a second try", SOON, || {
        home.event_types("a").iter().filter(|it| *it == "port_collision").count() > 1
    });
    assert_eq!(engines_in(home.path()), []);
    drop(holder);
    wait_for("the start that was waited for", SOON, || home.ps("a")["status"] == "running");
}

#[test]
fn not_wanted_and_running_it_is_stopped() {
    let home = Home::fake();
    let pid = left_alone(&home, &json!({}));
    sql(home.path(), "UPDATE instances SET desired_state = 'stopped'");
    let told = reconciled(&home, |row| row["status"] == "stopped");
    assert_eq!(types(&told), ["reconciled"]);
    assert!(!is_alive(pid));
    assert_eq!(sql(home.path(), "SELECT pid IS NULL, status FROM runtime"), "1|stopped");
}

#[test]
fn not_wanted_and_gone_nothing_is_done_and_nothing_told() {
    let home = Home::fake();
    let pid = left_alone(&home, &json!({}));
    end_engine(&home, pid, true);
    sql(home.path(), "UPDATE instances SET desired_state = 'stopped'");
    let told = reconciled(&home, |row| row["status"] == "stopped");
    wait_for("the row to forget", SOON, || sql(home.path(), "SELECT pid IS NULL FROM runtime") == "1");
    assert_eq!(types(&told), [""; 0]);
}

#[test]
fn an_on_demand_instance_is_left_as_it_is_and_its_crash_written_down() {
    let on_demand = json!({"lifecycle": {"load": "on_demand"}});
    let home = Home::fake();
    let pid = left_alone(&home, &on_demand);
    assert_eq!(home.ps("a")["desired_state"], "on_demand");
    let told = reconciled(&home, |row| row["health"] == "healthy" && !row["slots"].is_null());
    assert_eq!((types(&told).len(), home.engine_pid("a")), (0, pid));

    end(&home.daemon());
    end_engine(&home, pid, false);
    let told = reconciled(&home, |row| row["status"] == "crashed");
    assert_eq!(types(&told), ["crashed"]);
    assert_eq!(engines_in(home.path()), []);
}

#[test]
fn an_engine_that_nobody_claims_is_told_once_and_never_killed() {
    let home = Home::fake();
    let pid = left_alone(&home, &json!({}));
    std::fs::remove_dir_all(home.path().join("instances/a")).unwrap();
    let orphans = |home: &Home| {
        let events = home.json(&["events", "--type", "orphan_found", "--json"]);
        events.as_array().unwrap().iter().filter(|event| event["meta"]["pid"] == pid).count()
    };
    for _ in 0..2 {
        home.start_daemon();
        wait_for("the orphan to be told", SOON, || orphans(&home) > 0);
        end(&home.daemon());
    }
    assert_eq!((orphans(&home), is_alive(pid)), (1, true));
}

#[test]
fn a_command_without_a_daemon_tells_of_a_process_that_went_missing() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    home.ok(&["up", "a"]);
    let pid = home.engine_pid("a");
    end_engine(&home, pid, true);
    home.ok(&["up", "a"]);
    let types = home.event_types("a");
    assert_eq!(types.iter().filter(|it| *it == "process_missing").count(), 1, "{types:?}");
    assert_ne!(pid_of(&home.ps("a")["pid"]), pid);
}
