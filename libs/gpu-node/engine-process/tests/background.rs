//! Tools and daemons on every system, played by the fake engine.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod support;

use std::ffi::OsString;
use std::time::Duration;

use engine_process::{
    DetachedCommand, StartMark, ToolCommand, ToolError, run_tool, spawn_detached, start_mark,
    terminate_daemon,
};
use support::{LIMIT, Scene};
use testkit::wait_for;

fn args_of(scene: &Scene) -> Vec<OsString> {
    scene.spec.args.iter().map(OsString::from).collect()
}

#[test]
fn a_tool_over_its_limit_ends_with_all_that_it_started() {
    let scene = Scene::fake(&[]);
    let command = ToolCommand {
        program: scene.spec.executable.clone(),
        args: args_of(&scene),
        env: vec![("FAKE_CHILDREN".into(), "2".into()), ("FAKE_CHILDREN_NEW_SESSION".into(), "1".into())],
        ..ToolCommand::default()
    };
    let mut lines = Vec::new();
    let result = run_tool(&command, Duration::from_secs(3), &mut |line| lines.push(line.to_owned()));
    assert!(matches!(result, Err(ToolError::Timeout { .. })), "{result:?}");
    let children = lines.iter().filter_map(|line| line.split("fake: child ").nth(1)?.trim().parse().ok());
    let children: Vec<u32> = children.collect();
    assert_eq!(children.len(), 2, "{lines:?}");
    wait_for("the end of its children", LIMIT, || children.iter().all(|pid| start_mark(*pid).is_none()));
    assert!(!scene.answers());
}

#[test]
fn a_tool_tells_what_it_said_and_how_it_ended() {
    let scene = Scene::fake(&[]);
    let run = |args: &[&str]| {
        let args = args.iter().map(OsString::from).collect();
        let command = ToolCommand { program: scene.spec.executable.clone(), args, ..ToolCommand::default() };
        run_tool(&command, LIMIT, &mut |_| {}).unwrap()
    };
    let good = run(&["--version"]);
    assert_eq!(good.status.code(), Some(0));
    assert!(format!("{}{}", good.stdout, good.stderr).contains("version"), "{good:?}");
    let bad = run(&["--no such flag"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(bad.stderr.contains("--no such flag"), "{bad:?}");
}

#[test]
fn a_daemon_writes_its_log_and_is_ended_by_pid_and_start_mark_alone() {
    let scene = Scene::fake(&[]);
    let log = scene.home.layout().daemon_log();
    let command = DetachedCommand {
        executable: scene.spec.executable.clone(),
        args: args_of(&scene),
        env: vec![("FAKE_CHILDREN".into(), "1".into())],
        env_remove: Vec::new(),
        working_dir: Some(scene.home.path().to_owned()),
    };
    let pid = spawn_detached(&command, &log).unwrap();
    let mark = start_mark(pid).unwrap();
    let logged = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("fake: child "));
    wait_for("its log", LIMIT, logged);
    wait_for("its answer", LIMIT, || scene.answers());
    assert!(!terminate_daemon(pid, &StartMark("another boot:1".into()), LIMIT).unwrap());
    assert!(scene.answers(), "a stranger is left alone");
    assert!(terminate_daemon(pid, &mark, Duration::from_secs(2)).unwrap());
    assert_eq!(start_mark(pid), None);
    assert!(!terminate_daemon(pid, &mark, LIMIT).unwrap(), "it is gone");
}
