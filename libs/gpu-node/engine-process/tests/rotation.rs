//! Log files that are rotated under a living engine: nothing is lost, and readers follow.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod support;

use engine_process::{LogFiles, StreamSelection, tail_then_follow};
use support::{LIMIT, Scene, kill_hard, rotated, wait_gone, whole_log};
use testkit::wait_for;

#[test]
fn a_steady_writer_loses_nothing_at_a_rotation() {
    let scene = Scene::fake(&[("FAKE_LOG_EVERY_MS", "1")]);
    let mut scene = scene;
    scene.spec.log_max_bytes = 4000;
    scene.spec.log_rotation = 9;
    scene.launch();
    let log = &scene.spec.stdout_log;
    wait_for("five rotations", LIMIT, || rotated(log, 5).exists());
    let text = whole_log(log);
    let ticks: Vec<u64> =
        text.lines().filter_map(|line| line.strip_prefix("stdout tick ")?.parse().ok()).collect();
    let gaps = ticks.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(gaps <= 3, "{gaps} gaps in {} lines", ticks.len());
}

#[test]
fn following_survives_rotations_and_a_restart() {
    let mut scene = Scene::fake(&[("FAKE_LOG_EVERY_MS", "2")]);
    scene.spec.log_max_bytes = 4000;
    let engine = scene.launch();
    let files: LogFiles = scene.spec.log_files();
    wait_for("a first line", LIMIT, || files.stdout.metadata().is_ok_and(|data| data.len() > 0));
    let (first, mut follower) = tail_then_follow(&files, StreamSelection::Stdout, 5, None).unwrap();
    let mut seen: Vec<String> = first.into_iter().map(|line| line.text).collect();
    wait_for("rotations while following", LIMIT, || {
        seen.extend(follower.poll().unwrap().into_iter().map(|line| line.text));
        rotated(&files.stdout, 3).exists()
    });
    let ticks: Vec<u64> =
        seen.iter().filter_map(|line| line.strip_prefix("stdout tick ")?.parse().ok()).collect();
    let gaps = ticks.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    // A cut may cost a line when the machine is busy; a rotation that is read wrongly costs many.
    assert!(gaps <= 5 && ticks.len() > 300, "{gaps} gaps in {} lines", ticks.len());
    assert!(ticks.is_sorted_by(|a, b| a < b), "none is told twice");

    kill_hard(engine.identity.pid);
    wait_gone("the shim", engine.shim_pid);
    scene.launch();
    wait_for("the new engine's lines", LIMIT, || {
        follower.poll().unwrap().iter().any(|line| line.text == "stdout tick 0")
    });
}

#[test]
fn one_file_can_take_both_streams() {
    let mut scene = Scene::fake(&[("FAKE_LOG_EVERY_MS", "1")]);
    scene.spec.stderr_log = scene.spec.stdout_log.clone();
    scene.spec.log_max_bytes = 4000;
    scene.launch();
    let log = &scene.spec.stdout_log;
    wait_for("rotations", LIMIT, || rotated(log, 3).exists());
    let text = whole_log(log);
    assert!(text.contains("stdout tick ") && text.contains("stderr tick "));
}
