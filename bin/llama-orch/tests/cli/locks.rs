//! Locks that somebody does not let go.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::scene::{add_instance, home_with_engine};

/// A process that holds the instance's lock, as a hanging command of ours would.
#[cfg(target_os = "linux")]
#[test]
fn whoever_holds_a_lock_is_ended_when_that_is_forced() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let lock = home.layout().instance_lock(&"chat".parse().unwrap());
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let script = format!("exec 9>>'{}'; flock 9; exec sleep 1000", lock.display());
    let mut holder = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    testkit::wait_for("the lock to be held", Duration::from_secs(10), || {
        engine_process::holder(&lock).is_some()
    });
    let text = json!({
        "pid": holder.id(), "operation": "up chat", "started_at": "2026-01-01T00:00:00Z",
        "start_mark": engine_process::start_mark(holder.id()),
    });
    std::fs::write(&lock, text.to_string()).unwrap();

    let run = home.llama_orch(&["up", "chat", "--force-unlock"]);
    run.expect_exit(0);
    assert!(run.stderr.contains(&format!("ended pid {}", holder.id())), "{run}");
    assert!(!holder.wait().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_stranger_with_the_lock_is_left_alone() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let lock = home.layout().instance_lock(&"chat".parse().unwrap());
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let script = format!("exec 9>>'{}'; flock 9; exec sleep 1000", lock.display());
    let mut holder = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    testkit::wait_for("the lock to be held", Duration::from_secs(10), || {
        engine_process::holder(&lock).is_some()
    });
    home.llama_orch(&["up", "chat", "--force-unlock"]).expect_exit(33);
    assert!(holder.try_wait().unwrap().is_none(), "it still runs");
    holder.kill().unwrap();
    holder.wait().unwrap();
}
