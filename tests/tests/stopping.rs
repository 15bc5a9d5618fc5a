//! `down` ends all of what is ours, in time, and nothing else.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::SOON;
use support::database::sql;
use support::home::{Home, pid_of};
use support::processes::{engines_in, is_alive, is_port_free, kill_hard};
use support::stream::Stream;
use testkit::{RunningEngine, http, wait_for};

/// Long enough to be in flight whenever the stop comes.
const ENDLESS: u32 = 30_000;
/// What starting programs takes on a busy machine, over what the stop itself may take.
const MARGIN: Duration = Duration::from_secs(2);

fn stop(home: &Home, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    home.ok(arguments);
    begun.elapsed()
}

#[track_caller]
fn assert_nothing_left(home: &Home, pids: &[u32], port: u16) {
    for pid in pids {
        assert!(!is_alive(*pid), "{pid} of {pids:?} lives");
    }
    assert_eq!(engines_in(home.path()), []);
    assert!(is_port_free(port));
    assert_eq!(home.ps("a")["status"], "stopped");
    assert!(home.read_json("run/engines/a-r0.json").is_none(), "the handoff file goes with its engine");
}

#[test]
fn a_stream_through_the_gateway_holds_a_stop_up_for_no_longer_than_its_timeout() {
    let home = Home::real();
    let port = home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let pids = [home.engine_pid("a"), home.shim_pid("a")];
    let stream = Stream::chat(&daemon.address, "a", ENDLESS);

    let took = stop(&home, &["down", "a", "--timeout", "2"]);
    assert!(took >= Duration::from_secs(2), "the stream got less than its time: {took:?}");
    assert!(took < Duration::from_secs(6) + MARGIN, "took {took:?}");
    assert_nothing_left(&home, &pids, port);
    let cut = stream.finish(SOON);
    let last = cut.events.last().unwrap();
    assert!(last.contains("error"), "a stream that is cut says so: {last}");
    let refused =
        http::post_json(&daemon.address, "/v1/completions", &json!({"model": "a", "prompt": "x"})).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
}

#[test]
fn a_stream_that_ends_in_time_is_left_to_end() {
    let home = Home::real();
    let port = home.instance("a", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "a"]);
    let pids = [home.engine_pid("a"), home.shim_pid("a")];
    let stream = Stream::chat(&daemon.address, "a", 600);
    home.ok(&["down", "a", "--timeout", "60"]);
    stream.finish(SOON).assert_complete(600);
    assert_nothing_left(&home, &pids, port);
}

#[test]
fn a_client_of_the_engine_itself_holds_a_stop_up_for_no_longer() {
    for with_daemon in [false, true] {
        let home = Home::real();
        let port = home.instance("a", &json!({}));
        if with_daemon {
            home.start_daemon();
        }
        home.ok(&["up", "a"]);
        let pids = [home.engine_pid("a"), home.shim_pid("a")];
        let _stream = Stream::chat(&format!("127.0.0.1:{port}"), "a", ENDLESS);
        let took = stop(&home, &["down", "a", "--timeout", "1"]);
        assert!(took < Duration::from_secs(5) + MARGIN, "took {took:?}, with a daemon: {with_daemon}");
        assert_nothing_left(&home, &pids, port);
    }
}

#[test]
fn force_takes_less_than_two_seconds_whoever_is_connected() {
    let home = Home::real();
    let port = home.instance("a", &json!({}));
    for with_daemon in [false, true] {
        if with_daemon {
            home.start_daemon();
        }
        home.ok(&["up", "a"]);
        let pids = [home.engine_pid("a"), home.shim_pid("a")];
        let _direct = Stream::chat(&format!("127.0.0.1:{port}"), "a", ENDLESS);
        let took = stop(&home, &["down", "a", "--force"]);
        assert!(took < Duration::from_secs(2), "took {took:?}, with a daemon: {with_daemon}");
        assert_nothing_left(&home, &pids, port);
    }
    let daemon = home.daemon();
    home.ok(&["up", "a"]);
    let pids = [home.engine_pid("a"), home.shim_pid("a")];
    let _through = Stream::chat(&daemon.address, "a", ENDLESS);
    let took = stop(&home, &["down", "a", "--force"]);
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_nothing_left(&home, &pids, port);
}

/// The fake engine's children, wherever they went.
fn children(port: u16) -> Vec<u32> {
    let told = http::get(&format!("127.0.0.1:{port}"), "/fake/process").unwrap().json();
    told["children"].as_array().unwrap().iter().map(pid_of).collect()
}

#[test]
fn children_that_left_the_group_and_are_deaf_are_ended_too() {
    let stubborn = json!({"env": {
        "FAKE_CHILDREN": "3", "FAKE_CHILDREN_NEW_SESSION": "1", "FAKE_CHILDREN_DEAF": "1", "FAKE_IGNORE_SIGTERM": "9",
    }});
    for (with_shim, arguments) in [
        (true, ["down", "a", "--timeout", "1"].as_slice()),
        (true, &["down", "a", "--force"]),
        (false, &["down", "a", "--timeout", "1"]),
    ] {
        let home = Home::fake();
        let port = home.instance("a", &stubborn);
        home.ok(&["up", "a"]);
        let mut pids = children(port);
        assert_eq!(pids.len(), 3);
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        let shim = home.shim_pid("a");
        pids.extend([home.engine_pid("a"), shim]);
        if !with_shim {
            kill_hard(shim);
        }
        let took = stop(&home, arguments);
        assert!(took < Duration::from_secs(5) + MARGIN, "{arguments:?} took {took:?}");
        assert_nothing_left(&home, &pids, port);
    }
}

#[test]
fn children_of_an_engine_that_was_killed_do_not_outlive_it() {
    let home = Home::fake();
    let faults = json!({
        "env": {"FAKE_CHILDREN": "2", "FAKE_CHILDREN_NEW_SESSION": "1", "FAKE_CHILDREN_DEAF": "1"},
        "restart_policy": {"enabled": false},
    });
    let port = home.instance("a", &faults);
    home.ok(&["up", "a"]);
    let children = children(port);
    kill_hard(home.engine_pid("a"));
    wait_for("its children to be gone", SOON, || !children.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn a_foreign_llama_server_is_never_touched() {
    let home = Home::real();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = RunningEngine::real(elsewhere.path(), &[]);
    // The config claims the port on which somebody else's server answers /health with 200.
    home.instance("a", &json!({"server": {"port": foreign.port()}}));
    for with_daemon in [false, true] {
        if with_daemon {
            home.start_daemon();
        }
        let up = home.run(&["up", "a"]);
        up.expect_exit(40);
        assert!(up.stderr.contains(&foreign.pid().to_string()), "{up}");
        home.run(&["down", "a"]);
        home.run(&["down", "a", "--force"]);
        home.run(&["restart", "a", "--force"]).expect_exit(40);
        assert_eq!(engines_in(home.path()), []);
        assert_eq!(foreign.get("/health").unwrap().status, 200);
    }
    home.run(&["rm", "a", "--force"]).expect_exit(0);
    assert_eq!(foreign.get("/health").unwrap().status, 200);
}

/// Leaves behind what a crash of the machine would: a row and a handoff file whose pid means somebody else by now.
/// The stranger even runs the same program, on the port of the row; only the moment of its birth differs.
fn recycle_pid(home: &Home, stranger: &RunningEngine) {
    home.ok(&["up", "a"]);
    let (engine, shim) = (home.engine_pid("a"), home.shim_pid("a"));
    // Written by the shim a moment after the engine is ready; `shim_pid` has waited for it.
    let handoff = home.path().join("run/engines/a-r0.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&handoff).unwrap()).unwrap();
    kill_hard(shim);
    kill_hard(engine);
    wait_for("both to be gone", SOON, || !is_alive(engine) && !is_alive(shim));
    let (pid, port) = (stranger.pid(), stranger.port());
    sql(home.path(), &format!("UPDATE runtime SET pid = {pid}, port = {port} WHERE name = 'a'"));
    file["pid"] = json!(pid);
    file["url"] = json!(format!("http://127.0.0.1:{port}"));
    std::fs::write(&handoff, file.to_string()).unwrap();
}

#[test]
fn a_recycled_pid_is_never_touched() {
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = RunningEngine::real(elsewhere.path(), &[]);
    for command in [["down", "a"].as_slice(), &["down", "a", "--force"], &["rm", "a", "--force"]] {
        let home = Home::real();
        home.instance("a", &json!({}));
        recycle_pid(&home, &stranger);
        assert_eq!(home.describe("a")["process"]["ours"], false);
        home.run(command);
        assert!(is_alive(stranger.pid()), "{command:?}");
        assert_eq!(stranger.get("/health").unwrap().status, 200, "{command:?}");
    }
    let home = Home::real();
    home.instance("a", &json!({"restart_policy": {"initial_delay": 0.1}}));
    recycle_pid(&home, &stranger);
    home.start_daemon();
    // The row is cleared, the stranger left alone, and an engine of our own started.
    wait_for("an engine of our own", SOON, || home.ps("a")["status"] == "running");
    assert_ne!(home.engine_pid("a"), stranger.pid());
    assert!(home.event_types("a").iter().any(|it| it == "pid_mismatch"), "{:?}", home.event_types("a"));
    home.ok(&["down", "a"]);
    assert_eq!(stranger.get("/health").unwrap().status, 200);
}
