//! Whatever races, nothing is started twice and nothing is left locked or broken.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use support::database::assert_intact;
use support::home::Home;
use support::processes::{engines_in, is_alive, is_port_free};
use testkit::{ProgramRun, wait_for};

/// 0 once, and for the others: runs already, is starting, or the lock was not to be had in time.
#[track_caller]
fn assert_one_winner(runs: &[ProgramRun]) {
    let won = runs.iter().filter(|run| run.exit_code == Some(0)).count();
    for run in runs {
        assert!(matches!(run.exit_code, Some(0 | 21 | 23 | 33)), "{run}");
    }
    assert_eq!(won, 1, "{:?}", runs.iter().map(|run| run.exit_code).collect::<Vec<_>>());
}

/// How often an engine of the fake kind was started in this home.
fn starts(home: &Home) -> usize {
    std::fs::read_to_string(home.scratch().join("starts")).unwrap_or_default().lines().count()
}

fn start_log(home: &Home) -> serde_json::Value {
    json!({"env": {"FAKE_START_LOG": home.scratch().join("starts"), "FAKE_LOAD_MS": "300"}})
}

#[test]
fn twenty_parallel_ups_start_one_real_engine() {
    let home = Home::real();
    home.instance("a", &json!({}));
    assert_one_winner(&home.run_together(&vec![vec!["up", "a"]; 20]));
    assert_eq!(engines_in(home.path()).len(), 1);
    let started = home.event_types("a").iter().filter(|it| *it == "instance_started").count();
    assert_eq!((started, &home.ps("a")["status"]), (1, &json!("running")));
}

#[test]
fn twenty_parallel_ups_start_one_real_engine_when_a_daemon_does_it() {
    let home = Home::real();
    home.instance("a", &json!({}));
    home.start_daemon();
    assert_one_winner(&home.run_together(&vec![vec!["up", "a"]; 20]));
    assert_eq!(engines_in(home.path()).len(), 1);
    let started = home.event_types("a").iter().filter(|it| *it == "instance_started").count();
    assert_eq!((started, &home.ps("a")["status"]), (1, &json!("running")));
}

#[test]
fn twenty_parallel_ups_do_not_even_try_a_second_engine() {
    for with_daemon in [false, true] {
        let home = Home::fake();
        home.instance("a", &start_log(&home));
        if with_daemon {
            home.start_daemon();
        }
        assert_one_winner(&home.run_together(&vec![vec!["up", "a"]; 20]));
        assert_eq!(starts(&home), 1, "with a daemon: {with_daemon}");
    }
}

#[test]
fn ten_parallel_daemon_starts_make_one_daemon() {
    let home = Home::fake();
    let runs = home.run_together(&vec![vec!["daemon", "start"]; 10]);
    let won = runs.iter().filter(|run| run.exit_code == Some(0)).count();
    for run in &runs {
        assert!(matches!(run.exit_code, Some(0 | 61)), "{run}");
    }
    assert_eq!(won, 1);
    let daemon = home.daemon();
    assert_eq!(daemons_in(home.path()), [daemon.pid]);
    assert_eq!(home.run(&["daemon", "status"]).exit_code, Some(0));
}

/// Living programs of ours that were started in the foreground of this home.
fn daemons_in(home: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_daemon = |pid: &u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        arguments.contains("--foreground") && arguments.contains(home.to_str().unwrap()) && is_alive(*pid)
    };
    pids.filter(is_daemon).collect()
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn a_hundred_rounds_of_parallel_up_and_down_leave_order_behind() {
    let home = Home::fake();
    rounds(&home, 100);
}

#[test]
fn a_hundred_rounds_of_parallel_up_and_down_through_a_daemon_leave_order_behind() {
    let home = Home::fake();
    home.start_daemon();
    rounds(&home, 100);
}

/// Each round sends `up` and `down` of every name at once.
fn rounds(home: &Home, count: usize) {
    let load = json!({"env": {"FAKE_LOAD_MS": "20", "FAKE_START_LOG": home.scratch().join("starts")}});
    let ports: Vec<u16> = NAMES.iter().map(|name| home.instance(name, &load)).collect();
    let commands: Vec<Vec<&str>> =
        NAMES.iter().flat_map(|name| [vec!["up", *name], vec!["down", *name, "--timeout", "1"]]).collect();
    let over = AtomicBool::new(false);
    let mut codes: BTreeMap<Option<i32>, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            wait_for("the rounds to be over", Duration::from_secs(170), || {
                assert_one_engine_a_name(home.path());
                over.load(Ordering::Relaxed)
            });
        });
        for _ in 0..count {
            for run in home.run_together(&commands) {
                // Besides the race's own answers: ended by a `down` before it was ready, or stopped by then.
                let expected = matches!(run.exit_code, Some(0 | 20 | 21 | 23 | 24 | 30 | 31 | 33));
                assert!(expected, "{run}");
                *codes.entry(run.exit_code).or_default() += 1;
            }
            assert_one_engine_a_name(home.path());
            assert_no_instance_lock_is_held(home.path());
        }
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    let wins = codes.get(&Some(0)).copied().unwrap_or_default();
    eprintln!("exit codes: {codes:?}, engines started: {}", starts(home));
    assert!(wins >= count && starts(home) >= count, "hardly anything happened: {codes:?}");

    home.ok(&["down", "--all"]);
    assert_eq!(engines_in(home.path()), []);
    assert!(ports.iter().all(|port| is_port_free(*port)));
    for name in NAMES {
        // A second server for a name would have found its port taken.
        let log = std::fs::read_to_string(home.path().join(format!("logs/{name}/stderr.log"))).unwrap();
        assert!(!log.contains("couldn't bind"), "{log}");
        assert_eq!(home.ps(name)["status"], "stopped");
    }
    assert_nothing_is_locked(home.path());
    assert_intact(home.path());
}

#[track_caller]
fn assert_one_engine_a_name(home: &Path) {
    let engines = engines_in(home);
    for name in NAMES {
        let pids: Vec<u32> = engines.iter().filter(|(_, alias)| alias == name).map(|(pid, _)| *pid).collect();
        // One may have ended while the other was found: both have to live now.
        let living = pids.iter().filter(|pid| is_alive(**pid)).count();
        assert!(living <= 1, "{name} has {pids:?}");
    }
}

#[track_caller]
fn assert_no_instance_lock_is_held(home: &Path) {
    for name in NAMES {
        assert_unlocked(&home.join(format!("state/locks/{name}.lock")));
    }
}

#[track_caller]
fn assert_nothing_is_locked(home: &Path) {
    for entry in std::fs::read_dir(home.join("state/locks")).unwrap().flatten() {
        assert_unlocked(&entry.path());
    }
}

#[track_caller]
fn assert_unlocked(path: &Path) {
    let file = File::open(path).unwrap();
    file.try_lock().unwrap_or_else(|error| {
        panic!("{} is held by {}: {error}", path.display(), std::fs::read_to_string(path).unwrap_or_default())
    });
}
