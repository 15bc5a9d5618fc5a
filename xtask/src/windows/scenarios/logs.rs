//! Logs: read, followed, kept in bounds.

use std::time::Duration;

use serde_json::json;
use testkit::{http, wait_for};

use super::{Named, SOON, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("logs shows both streams and follows them through a restart", follow),
    ("a flood keeps to its bound while the engine runs on", flood),
];

const MIB: u64 = 1024 * 1024;

fn follow(scene: &Scene<'_>) {
    scene.instance("a", &[("FAKE_LOG_EVERY_MS", "50")], &json!({}));
    scene.ok(&["up", "a"]);
    wait_for("lines of both streams", SOON, || {
        let said = scene.ok(&["logs", "a", "--tail", "20"]).stdout;
        said.contains("stdout tick") && said.contains("stderr tick")
    });
    let output = scene.folder().join("followed.txt");
    let mut follower = scene.spawn(&["logs", "a", "--follow"], &output);
    let followed = || std::fs::read_to_string(&output).unwrap_or_default();
    wait_for("followed lines", SOON, || followed().contains("tick"));
    let before = followed().len();
    scene.ok(&["restart", "a"]);
    // The new engine counts from the beginning again.
    wait_for("lines of the new engine", SOON, || {
        followed().get(before..).is_some_and(|new| new.contains("model loaded"))
    });
    for process in scene.processes(&["logs a --follow"]) {
        process.press_ctrl_c();
    }
    wait_for("the follower's end", SOON, || follower.try_wait().is_ok_and(|status| status.is_some()));
    scene.ok(&["down", "a"]);
}

/// Twelve megabytes through Wine, of which each write is a message to its server: slow where others use the machine.
const FLOODED: Duration = Duration::from_mins(2);

fn flood(scene: &Scene<'_>) {
    let limits = json!({"logs": {"max_size_mb": 1, "rotation": 2}});
    let port = scene.instance("a", &[], &limits);
    scene.ok(&["up", "a"]);
    let knobs = json!({"FAKE_FLOOD_BYTES": (12 * MIB).to_string()});
    let reply =
        http::post_json(&format!("127.0.0.1:{port}"), "/fake/faults", &knobs).expect("the engine answers");
    assert_eq!(reply.status, 200, "{}", reply.text());
    wait_for("the end of the flood", FLOODED, || {
        scene.ok(&["logs", "a", "--tail", "3", "--stream", "stderr"]).stdout.contains("the flood is over")
    });
    let size = |file: &str| scene.path("logs/a").join(file).metadata().map_or(0, |about| about.len());
    wait_for("the logs to be back in their bound", FLOODED, || {
        ["stdout", "stderr"].iter().all(|stream| {
            size(&format!("{stream}.log")) <= MIB
                && (1..=MIB + MIB / 2).contains(&size(&format!("{stream}.log.1")))
        })
    });
    assert!(!scene.path("logs/a/stdout.log.3").exists());
    assert_eq!(scene.row("a")["status"], "running");
    scene.ok(&["down", "a"]);
}
