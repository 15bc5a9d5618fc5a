//! Engines: started, watched, adopted, stopped with all they started.

use std::net::TcpListener;

use serde_json::json;
use testkit::{http, wait_for, wait_for_value};

use super::{Named, SOON, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("up, ps, health, describe and down go through an engine's life without a daemon", life),
    ("down asks the engine to end before anything is forced", polite_down),
    ("down ends the whole tree of an engine that will not listen", whole_tree),
    ("an engine that dies at its start is told by its last words with 30", dies_at_start),
    ("up on a port that another program has is refused with 40", port_taken),
    ("restart gives a new engine, rm takes the stopped one away", restart_and_remove),
    ("the daemon starts a crashed engine again", crash),
    ("engines live on while the daemon stops, is killed and starts; it adopts them", adoption),
    ("an engine whose shim was killed lives on and gets a new one", lost_shim),
];

/// Whether the engine of this port answers.
fn answers(port: u16) -> bool {
    http::get(&address(port), "/health").is_ok_and(|reply| reply.status == 200)
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn life(scene: &Scene<'_>) {
    let port = scene.instance("a", &[], &json!({}));
    scene.run(&["down", "a"]).expect_exit(20);
    scene.ok(&["up", "a"]);
    assert!(answers(port));
    let row = scene.row("a");
    assert_eq!((&row["status"], &row["port"]), (&json!("running"), &json!(port)), "{row}");
    scene.run(&["up", "a"]).expect_exit(21);
    scene.ok(&["health", "a"]);
    let description = scene.json(&["describe", "a"]);
    assert_eq!(description["process"]["ours"], true, "{description}");
    scene.ok(&["down", "a"]);
    assert!(!answers(port));
    assert_eq!(scene.row("a")["status"], "stopped");
    scene.assert_nothing_runs();
    let events = scene.json(&["events", "--instance", "a"]).to_string();
    assert!(events.contains("instance_started") && events.contains("instance_stopped"), "{events}");
}

fn polite_down(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["up", "a"]);
    scene.ok(&["down", "a"]);
    let said = scene.text("logs/a/stderr.log");
    assert!(said.contains("cleaning up before exit"), "{said}");
}

fn whole_tree(scene: &Scene<'_>) {
    let knobs = [("FAKE_CHILDREN", "2"), ("FAKE_IGNORE_SIGTERM", "100")];
    scene.instance("a", &knobs, &json!({}));
    for arguments in [&["down", "a", "--timeout", "1"][..], &["down", "a", "--force"]] {
        scene.ok(&["up", "a"]);
        assert_eq!(scene.processes(&["--fake-child"]).len(), 2);
        scene.ok(arguments);
        scene.assert_nothing_runs();
    }
}

fn dies_at_start(scene: &Scene<'_>) {
    let knobs =
        [("FAKE_EXIT_AT", "start"), ("FAKE_EXIT_CODE", "9"), ("FAKE_LAST_WORDS", "error: out of luck")];
    scene.instance("a", &knobs, &json!({}));
    let run = scene.run(&["up", "a"]);
    run.expect_exit(30);
    assert!(run.stderr.contains("out of luck"), "{run}");
    scene.assert_nothing_runs();
}

fn port_taken(scene: &Scene<'_>) {
    let port = scene.instance("a", &[], &json!({}));
    let _other = TcpListener::bind(address(port)).expect("the port is free");
    let run = scene.run(&["up", "a"]);
    run.expect_exit(40);
    assert!(run.stderr.contains(&port.to_string()), "{run}");
    scene.assert_nothing_runs();
}

fn restart_and_remove(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["up", "a"]);
    let first = scene.row("a")["pid"].clone();
    scene.ok(&["restart", "a"]);
    assert_ne!(scene.row("a")["pid"], first);
    scene.run(&["rm", "a"]).expect_exit(21);
    scene.ok(&["down", "a"]);
    scene.ok(&["rm", "a"]);
    assert!(!scene.path("instances/a").exists());
}

fn crash(scene: &Scene<'_>) {
    let starts = scene.windows_path("starts");
    let knobs = [
        ("FAKE_EXIT_AFTER_MS", "400"),
        ("FAKE_EXIT_CODE", "7"),
        ("FAKE_CRASHES", "1"),
        ("FAKE_START_LOG", starts.as_str()),
    ];
    let port = scene.instance("a", &knobs, &json!({"restart_policy": {"initial_delay": 0.1}}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["up", "a"]);
    wait_for("the second start", SOON, || scene.starts() == 2);
    let row = wait_for_value("the engine to run again", SOON, || {
        let row = scene.row("a");
        (row["status"] == "running" && row["restarts"] == 1).then_some(row)
    });
    assert!(answers(port), "{row}");
    let events = scene.json(&["events", "--instance", "a", "--limit", "100"]).to_string();
    assert!(events.contains("code 7"), "the exit code is lost: {events}");
    scene.ok(&["down", "a"]);
    scene.ok(&["daemon", "stop"]);
    scene.assert_nothing_runs();
}

fn adoption(scene: &Scene<'_>) {
    let port = scene.instance("a", &[], &json!({}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["up", "a"]);
    let pid = scene.row("a")["pid"].clone();
    scene.ok(&["daemon", "stop"]);
    assert!(answers(port));
    scene.ok(&["daemon", "start"]);
    scene.task_kill(scene.daemon_pid());
    assert!(answers(port));
    assert_eq!(scene.row("a")["status"], "running");
    scene.ok(&["daemon", "start"]);
    wait_for("a route to the adopted engine", SOON, || {
        http::get(scene.address(), "/v1/models").is_ok_and(|reply| reply.text().contains("\"a\""))
    });
    scene.ok(&["daemon", "restart"]);
    assert_eq!(scene.row("a")["pid"], pid);
    scene.run(&["up", "a"]).expect_exit(21);
    scene.ok(&["down", "a"]);
    scene.ok(&["daemon", "stop"]);
    scene.assert_nothing_runs();
}

fn lost_shim(scene: &Scene<'_>) {
    let port = scene.instance("a", &[], &json!({}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["up", "a"]);
    let shim = || scene.json(&["describe", "a"])["process"]["shim_pid"].as_u64();
    let first = wait_for_value("the shim's name", SOON, shim);
    scene.task_kill(first);
    wait_for("a new shim", SOON, || shim().is_some_and(|pid| pid != first));
    assert!(answers(port));
    scene.ok(&["down", "a"]);
    scene.ok(&["daemon", "stop"]);
    scene.assert_nothing_runs();
}
