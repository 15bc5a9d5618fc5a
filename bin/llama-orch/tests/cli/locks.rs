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

#[test]
fn whoever_waits_for_a_lock_is_told_who_has_it_and_gives_up_in_the_end() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let lock = home.layout().instance_lock(&"chat".parse().unwrap());
    let guard = engine_process::acquire(&lock, "a long story", Duration::ZERO).unwrap();
    let begun = std::time::Instant::now();
    let run = home.llama_orch(&["down", "chat"]);
    run.expect_exit(33);
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    let who = format!("pid {} (a long story, since ", std::process::id());
    assert!(run.stderr.contains(&format!("waiting for chat: locked by {who}")), "{run}");
    assert!(crate::scene::only_error(&run).contains(&who), "{run}");
    drop(guard);
    home.llama_orch(&["down", "chat"]).expect_exit(20);
}
