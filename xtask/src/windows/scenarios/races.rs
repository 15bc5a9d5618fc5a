//! Locks: whatever races, nothing is started twice.

use serde_json::json;
use testkit::ProgramRun;

use super::{Named, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("twenty ups at once start one engine", twenty_ups),
    ("twenty ups at once start one engine when a daemon does it", twenty_ups_with_daemon),
    ("ups and downs at once leave order behind", ups_and_downs),
];

fn twenty_ups(scene: &Scene<'_>) {
    race(scene);
    scene.ok(&["down", "a"]);
    scene.assert_nothing_runs();
}

fn twenty_ups_with_daemon(scene: &Scene<'_>) {
    scene.ok(&["daemon", "start"]);
    race(scene);
    scene.ok(&["down", "a"]);
    scene.ok(&["daemon", "stop"]);
    scene.assert_nothing_runs();
}

fn slow_instance(scene: &Scene<'_>) {
    let starts = scene.windows_path("starts");
    scene.instance("a", &[("FAKE_START_LOG", &starts), ("FAKE_LOAD_MS", "300")], &json!({}));
}

fn race(scene: &Scene<'_>) {
    slow_instance(scene);
    let runs = scene.run_together(&vec![vec!["up", "a"]; 20]);
    let won = runs.iter().filter(|run| run.exit_code == Some(0)).count();
    // The others: runs already, is starting, or the lock was not to be had in time.
    for run in &runs {
        assert!(matches!(run.exit_code, Some(0 | 21 | 23 | 33)), "{run}");
    }
    assert_eq!(won, 1, "{:?}", codes(&runs));
    assert_eq!(scene.starts(), 1);
    assert_eq!(scene.row("a")["status"], "running");
}

fn ups_and_downs(scene: &Scene<'_>) {
    slow_instance(scene);
    for _ in 0..3 {
        let commands = [vec!["up", "a"], vec!["down", "a", "--timeout", "1"]];
        let runs = scene.run_together(&[&commands[..]; 3].concat());
        for run in &runs {
            assert!(matches!(run.exit_code, Some(0 | 20 | 21 | 23 | 24 | 30 | 33)), "{run}");
        }
        let engines = scene.processes(&["fake-llama-server.exe", "--port"]).len();
        assert!(engines <= 1, "{engines} engines after {:?}", codes(&runs));
    }
    let _ = scene.run(&["down", "a", "--force"]);
    assert_eq!(scene.row("a")["status"], "stopped");
    scene.assert_nothing_runs();
}

fn codes(runs: &[ProgramRun]) -> Vec<Option<i32>> {
    runs.iter().map(|run| run.exit_code).collect()
}
