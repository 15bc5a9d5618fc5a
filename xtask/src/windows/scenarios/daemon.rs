//! The daemon's life, and the gateway's door.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use testkit::{http, wait_for};

use super::{Named, SOON, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("the daemon starts in the background, answers, and is asked to stop", start_and_stop),
    ("a daemon that was killed is started again", killed),
    ("Ctrl-C ends a daemon in the foreground with a word of farewell", ctrl_c),
    ("eight starts at once give one daemon", many_starts),
    ("an address that another program has is refused with 40", address_taken),
    ("daemon install shows the task that Windows would run, and writes nothing", install_dry_run),
    ("pool-managerd is the daemon of a home as well", pool_managerd),
];

fn start_and_stop(scene: &Scene<'_>) {
    scene.run(&["daemon", "status"]).expect_exit(60);
    scene.ok(&["daemon", "start"]);
    let status = scene.json(&["daemon", "status"]);
    assert_eq!(status["running"], true);
    assert!(status["rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{status}");
    let health = http::get(scene.address(), "/health").expect("the gateway answers");
    assert_eq!(health.status, 200);
    scene.run(&["daemon", "start"]).expect_exit(61);
    let begin = Instant::now();
    scene.ok(&["daemon", "stop"]);
    assert!(begin.elapsed() < Duration::from_secs(10), "a stop takes under 5 s on a machine with time");
    // It was asked, not killed: it has said so, and taken its file with it.
    let log = scene.text("logs/daemon.log");
    assert!(log.contains("stopping; engines keep running"), "{log}");
    assert!(!scene.path("run/daemon.json").exists());
    let events = scene.json(&["events"]).to_string();
    assert!(events.contains("stopped"), "{events}");
    scene.run(&["daemon", "stop"]).expect_exit(60);
}

fn killed(scene: &Scene<'_>) {
    scene.ok(&["daemon", "start"]);
    let first = scene.daemon_pid();
    scene.task_kill(first);
    scene.run(&["daemon", "status"]).expect_exit(60);
    scene.ok(&["daemon", "start"]);
    assert_ne!(scene.daemon_pid(), first);
    scene.ok(&["daemon", "restart"]);
    assert_eq!(scene.json(&["daemon", "status"])["running"], true);
}

fn ctrl_c(scene: &Scene<'_>) {
    let output = scene.folder().join("foreground.txt");
    let mut daemon = scene.spawn(&["daemon", "start", "--foreground"], &output);
    wait_for("the daemon", SOON, || http::get(scene.address(), "/health").is_ok());
    for process in scene.processes(&["daemon start --foreground"]) {
        process.press_ctrl_c();
    }
    wait_for("the end of the daemon", SOON, || daemon.try_wait().is_ok_and(|status| status.is_some()));
    let said = std::fs::read_to_string(&output).expect("the output was made");
    assert!(said.contains("Ctrl-C"), "{said}");
    assert!(!scene.path("run/daemon.json").exists());
}

fn many_starts(scene: &Scene<'_>) {
    let runs = scene.run_together(&vec![vec!["daemon", "start"]; 8]);
    let started = runs.iter().filter(|run| run.exit_code == Some(0)).count();
    let refused = runs.iter().filter(|run| run.exit_code == Some(61)).count();
    assert_eq!((started, refused), (1, 7), "{runs:?}");
    assert_eq!(scene.processes(&["daemon start --foreground"]).len(), 1);
}

fn address_taken(scene: &Scene<'_>) {
    let _other = TcpListener::bind(scene.address()).expect("the port is free");
    let run = scene.run(&["daemon", "start"]);
    run.expect_exit(40);
    assert!(run.stderr.contains(scene.address()), "{run}");
}

fn install_dry_run(scene: &Scene<'_>) {
    for arguments in [&["daemon", "install", "--dry-run"][..], &["daemon", "install", "--user", "--dry-run"]]
    {
        let shown = scene.ok(arguments);
        for words in ["schtasks /create", "llama-orch.exe</Command>", "daemon start"] {
            assert!(shown.stdout.contains(words), "{words} is missing: {shown}");
        }
        assert!(!shown.stdout.contains(r"\\?\"), "{shown}");
    }
    assert!(!scene.path("").exists());
}

fn pool_managerd(scene: &Scene<'_>) {
    let output = scene.folder().join("pool-managerd.txt");
    let mut node = scene.spawn_program("pool-managerd", &[], &output);
    wait_for("the node", SOON, || scene.path("run/daemon.json").exists());
    scene.run(&["daemon", "start"]).expect_exit(61);
    scene.ok(&["daemon", "stop"]);
    wait_for("the end of the node", SOON, || node.try_wait().is_ok_and(|status| status.is_some()));
}
