//! Daemons started in the background and ended by pid and start mark.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod support;

use std::time::Duration;

use engine_process::{DetachedCommand, StartMark, spawn_detached, start_mark, terminate_daemon};
use support::{LIMIT, field};
use testkit::{TempHome, wait_for, wait_for_value};

fn shell(script: &str, home: &TempHome) -> (u32, StartMark) {
    let command = DetachedCommand {
        executable: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("GIVEN".into(), "yes".into())],
        env_remove: vec!["PATH".into()],
        working_dir: Some(home.path().to_owned()),
    };
    let pid = spawn_detached(&command, &home.layout().daemon_log()).unwrap();
    (pid, start_mark(pid).unwrap())
}

#[test]
fn a_daemon_has_a_session_and_a_log_of_its_own() {
    let home = TempHome::new();
    let (pid, _) = shell("echo given=$GIVEN; echo oops >&2; pwd; read line; sleep 1000 & wait", &home);
    let log = wait_for_value("the log", LIMIT, || {
        let text = std::fs::read_to_string(home.layout().daemon_log()).ok()?;
        (text.lines().count() == 3).then_some(text)
    });
    assert_eq!(log, format!("given=yes\noops\n{}\n", home.path().display()));
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid.cast_signed()))).unwrap();
    assert_eq!(session.as_raw().cast_unsigned(), pid);
}

#[test]
fn a_daemon_is_asked_then_killed_and_a_stranger_is_left_alone() {
    let home = TempHome::new();
    let (polite, mark) = shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done", &home);
    let grace = Duration::from_secs(10);
    assert!(!terminate_daemon(polite, &StartMark("another boot:1".into()), grace).unwrap());
    assert!(!field(polite, "status", "State").starts_with('Z'));
    assert!(terminate_daemon(polite, &mark, grace).unwrap());
    assert!(!terminate_daemon(polite, &mark, grace).unwrap(), "it is gone");

    let (deaf, mark) = shell("trap '' TERM; echo up; while :; do sleep 0.01; done", &home);
    let up = || std::fs::read_to_string(home.layout().daemon_log()).is_ok_and(|log| log.ends_with("up\n"));
    wait_for("the deaf one", LIMIT, up);
    assert!(terminate_daemon(deaf, &mark, Duration::from_millis(100)).unwrap());
    assert_eq!(start_mark(deaf), None);
}
