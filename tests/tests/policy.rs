//! The restart policy from outside: `down` has the last word in each phase, a wait outlives its daemon, giving up is
//! told once, and an engine's last words are understood.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::SOON;
use support::database::sql;
use support::home::Home;
use support::processes::{engines_in, is_alive, kill_hard, processes_in};
use testkit::{wait_for, wait_for_value};

fn count(home: &Home, kind: &str) -> usize {
    home.event_types("a").iter().filter(|it| *it == kind).count()
}

/// How often the fake engine was started.
fn starts(home: &Home) -> usize {
    std::fs::read_to_string(home.scratch().join("starts")).unwrap_or_default().lines().count()
}

/// Down, without an engine, and no restart to come: also for the next daemon, which starts what is wanted.
#[track_caller]
fn assert_stays_down(home: &Home) {
    for _ in 0..2 {
        let row = home.ps("a");
        assert_eq!(
            (&row["status"], &row["desired_state"], &row["next_restart_at"]),
            (&json!("stopped"), &json!("stopped"), &Value::Null),
            "{row}"
        );
        assert_eq!(engines_in(home.path()), []);
        let daemon = home.daemon();
        kill_hard(daemon.pid);
        wait_for("the daemon to be gone", SOON, || !is_alive(daemon.pid));
        assert_eq!(processes_in(home.path()), [], "no shim is left behind");
        home.start_daemon();
    }
}

#[test]
fn down_wins_while_a_restart_waits() {
    let home = Home::fake();
    let crashing = json!({
        "env": {"FAKE_EXIT_AT": "start", "FAKE_START_LOG": home.scratch().join("starts")},
        "restart_policy": {"initial_delay": 1, "jitter": 0},
    });
    home.instance("a", &crashing);
    home.start_daemon();
    home.run(&["up", "a", "--no-wait"]);
    wait_for("a restart to wait", SOON, || !home.ps("a")["next_restart_at"].is_null());
    home.ok(&["down", "a"]);
    let before = starts(&home);
    assert_stays_down(&home);
    assert_eq!(starts(&home), before, "a restart was due meanwhile, and cancelled");
}

#[test]
fn down_wins_while_the_engine_is_being_spawned() {
    for _ in 0..5 {
        let home = Home::fake();
        home.instance("a", &json!({"env": {"FAKE_NEVER_READY": "1"}}));
        home.start_daemon();
        // Neither waits for the other: the stop comes while the start is planned, spawned or written down.
        let mut up = home.spawn(&["up", "a"], "up.txt");
        wait_for("the start to begin", SOON, || home.ps("a")["status"] != "stopped" || up.has_ended());
        home.ok(&["down", "a", "--timeout", "0"]);
        wait_for("the start to be given up", SOON, || up.has_ended());
        assert_eq!(up.exit_status().and_then(|it| it.code()), Some(30), "{}", up.output());
        assert_stays_down(&home);
    }
}

#[test]
fn down_wins_while_the_engine_loads() {
    let home = Home::fake();
    home.instance("a", &json!({"env": {"FAKE_NEVER_READY": "1"}}));
    home.start_daemon();
    home.ok(&["up", "a", "--no-wait"]);
    wait_for("the load", SOON, || home.ps("a")["health"] == "loading" && !home.ps("a")["pid"].is_null());
    home.ok(&["down", "a"]);
    assert_stays_down(&home);
}

#[test]
fn down_wins_over_an_engine_that_serves_and_one_that_crashes_as_it_is_stopped() {
    let home = Home::fake();
    // Deaf to the polite stop, and killed in the middle of it.
    home.instance("a", &json!({"env": {"FAKE_IGNORE_SIGTERM": "9"}, "restart_policy": {"initial_delay": 0}}));
    for crash in [false, true] {
        home.run(&["daemon", "start"]);
        home.ok(&["up", "a"]);
        let pid = home.engine_pid("a");
        let mut down = home.spawn(&["down", "a", "--timeout", "1"], "down.txt");
        if crash {
            wait_for("the stop to begin", SOON, || home.ps("a")["status"] == "stopping" || down.has_ended());
            kill_hard(pid);
        }
        wait_for("the stop", SOON, || down.has_ended());
        assert!(down.exit_status().unwrap().success(), "{}", down.output());
        assert_stays_down(&home);
    }
    assert_eq!((count(&home, "crashed"), count(&home, "restarted")), (0, 0));
}

#[test]
fn down_stops_an_engine_that_was_started_behind_the_daemon_s_back() {
    let home = Home::fake();
    home.instance("a", &json!({"restart_policy": {"initial_delay": 3600, "max_delay": 3600, "jitter": 0}}));
    home.start_daemon();
    home.ok(&["up", "a"]);
    kill_hard(home.engine_pid("a"));
    wait_for("a restart to wait", SOON, || !home.ps("a")["next_restart_at"].is_null());
    // As a command that found no daemon does it: here the daemon's own file is out of sight for a moment.
    let (file, aside) = (home.path().join("run/daemon.json"), home.scratch().join("daemon.json"));
    std::fs::rename(&file, &aside).unwrap();
    home.ok(&["up", "a"]);
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(engines_in(home.path()).len(), 1);
    home.ok(&["down", "a"]);
    assert_stays_down(&home);
}

#[test]
fn a_restart_that_waits_outlives_its_daemon_with_its_attempts_and_its_delay() {
    let home = Home::fake();
    let policy = json!({
        "env": {"FAKE_EXIT_AT": "start"},
        "restart_policy": {"initial_delay": 0.015, "backoff_multiplier": 10, "max_delay": 3600, "max_retries": 10, "jitter": 0},
    });
    home.instance("a", &policy);
    home.start_daemon();
    home.run(&["up", "a", "--no-wait"]);
    // 0.015, 0.15, 1.5 and then 15 s: time to end two daemons in.
    let scheduled = "SELECT restart_attempts, next_restart_at FROM runtime WHERE restart_attempts = 4";
    let before = wait_for_value("the long wait", SOON, || {
        Some(sql(home.path(), scheduled)).filter(|row| !row.is_empty() && !row.contains("None"))
    });
    let crashes = count(&home, "crashed");
    for _ in 0..2 {
        let daemon = home.daemon();
        kill_hard(daemon.pid);
        wait_for("the daemon to be gone", SOON, || !is_alive(daemon.pid));
        home.start_daemon();
        assert_eq!(home.ps("a")["status"], "starting");
        assert_eq!(sql(home.path(), scheduled), before, "the same attempt at the same moment");
    }
    // At that moment it is tried, not earlier, and the count goes on.
    wait_for("the next attempt", SOON, || count(&home, "crashed") > crashes);
    wait_for("its delay", SOON, || sql(home.path(), "SELECT restart_attempts FROM runtime") == "5");
    let due: i64 = before.split('|').nth(1).unwrap().parse().unwrap();
    let tried = sql(home.path(), "SELECT max(ts) FROM events WHERE event_type = 'restarted'");
    assert!(tried.parse::<i64>().unwrap() >= due, "tried at {tried}, due at {due}");
}

#[test]
fn the_policy_gives_up_once_says_so_once_and_up_begins_anew() {
    let home = Home::fake();
    let policy = json!({
        "env": {"FAKE_EXIT_AT": "start", "FAKE_LAST_WORDS": "error: no luck"},
        "restart_policy": {"initial_delay": 0.01, "max_delay": 0.01, "max_retries": 2, "jitter": 0},
    });
    home.instance("a", &policy);
    home.start_daemon();
    for round in 1..=2 {
        home.run(&["up", "a", "--no-wait"]);
        wait_for("the policy to give up", SOON, || count(&home, "gave_up") == round);
        let row = home.ps("a");
        assert_eq!((&row["status"], &row["desired_state"]), (&json!("crashed"), &json!("running")), "{row}");
        assert!(row["last_error"].as_str().unwrap().contains("no luck"), "{row}");
        // The first start and two by policy.
        assert_eq!((count(&home, "crashed"), count(&home, "restarted")), (3 * round, 2 * round));
        let daemon = home.daemon();
        kill_hard(daemon.pid);
        wait_for("the daemon to be gone", SOON, || !is_alive(daemon.pid));
        home.start_daemon();
        assert_eq!((&home.ps("a")["status"], count(&home, "gave_up")), (&json!("crashed"), round));
    }
}

#[test]
fn a_start_that_failed_without_a_daemon_is_tried_again_by_the_next_one() {
    let home = Home::fake();
    let once = json!({
        "env": {
            "FAKE_EXIT_AT": "start", "FAKE_CRASHES": "1", "FAKE_START_LOG": home.scratch().join("starts"),
        },
        "restart_policy": {"initial_delay": 0.01},
    });
    home.instance("a", &once);
    home.run(&["up", "a"]).expect_exit(30);
    assert_eq!(
        (&home.ps("a")["status"], &home.ps("a")["desired_state"]),
        (&json!("crashed"), &json!("running"))
    );
    home.start_daemon();
    wait_for("the restart by policy", SOON, || home.ps("a")["status"] == "running");
    assert_eq!((count(&home, "gave_up"), starts(&home)), (0, 2));
}

/// Waits for the crash of a start that cannot succeed, and returns its event and what `describe` says.
fn crash_of(home: &Home) -> (Value, Value) {
    home.start_daemon();
    home.run(&["up", "a"]).expect_exit(30);
    wait_for("the crash", SOON, || count(home, "crashed") > 0);
    let events = home.events("a");
    let crashed = events.iter().find(|event| event["event_type"] == "crashed").unwrap().clone();
    (crashed, home.describe("a"))
}

#[test]
fn a_damaged_model_that_the_real_engine_cannot_load_is_told_as_one() {
    let home = Home::real();
    let whole = std::fs::read(home.model()).unwrap();
    let damaged = home.scratch().join("damaged.gguf");
    // The head is whole; most of the tensors' data is missing.
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    home.instance("a", &json!({"model": {"path": damaged}, "restart_policy": {"initial_delay": 60}}));
    let (crashed, about) = crash_of(&home);
    assert_eq!(crashed["meta"]["cause"], "model_invalid", "{crashed}");
    assert!(crashed["message"].as_str().unwrap().contains("the model file is damaged"), "{crashed}");
    assert!(about["last_error"].as_str().unwrap().contains("the model file is damaged"), "{about}");
}

#[test]
fn a_value_that_the_real_engine_refuses_is_told_as_a_bad_argument() {
    let home = Home::real();
    // A flag that it knows: what it makes of the value, only the engine can say.
    let config = json!({"args": ["--cache-type-k", "nonsense"], "restart_policy": {"initial_delay": 60}});
    home.instance("a", &config);
    let (crashed, about) = crash_of(&home);
    assert_eq!(crashed["meta"]["cause"], "bad_argument", "{crashed}");
    assert!(crashed["message"].as_str().unwrap().contains("an argument it does not accept"), "{crashed}");
    assert!(about["last_error"].as_str().unwrap().contains("an argument it does not accept"), "{about}");
}
