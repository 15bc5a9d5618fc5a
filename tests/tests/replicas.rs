//! Several engines of one instance: one name, one port, as many engines as its config says.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::SOON;
use support::home::{Home, pid_of};
use support::processes::{engines_in, is_alive, kill_hard};
use support::stream::Stream;
use testkit::{http, wait_for};

/// Long enough for everything that a test does meanwhile, short enough for the drain of a replica that goes.
const TOKENS: u32 = 400;

/// How long a replica that is too many may go on with what it does.
const FAREWELL: Duration = Duration::from_secs(30);

/// An engine that takes its time for every token.
fn slow() -> Value {
    json!({"env": {"FAKE_TOKEN_MS": "20"}})
}

fn scaled(count: u16) -> Value {
    json!({"replicas": count})
}

/// The rows of one instance in `ps --json`.
#[track_caller]
fn rows(home: &Home, name: &str) -> Vec<Value> {
    let rows = home.json(&["ps", "--json"]);
    rows.as_array().unwrap().iter().filter(|row| row["name"] == name).cloned().collect()
}

#[track_caller]
fn pids(home: &Home, name: &str) -> Vec<u32> {
    rows(home, name).iter().map(|row| pid_of(&row["pid"])).collect()
}

/// How many generations each engine was asked for.
fn served(home: &Home, name: &str) -> Vec<u64> {
    let ports = rows(home, name).into_iter().map(|row| row["port"].as_u64().unwrap());
    let stats = ports.map(|port| http::get(&format!("127.0.0.1:{port}"), "/fake/stats").unwrap().json());
    stats.map(|stats| stats["tokens"].as_u64().unwrap()).collect()
}

fn chat(address: &str, model: &str) -> http::Reply {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
    http::post_json(address, "/v1/chat/completions", &body).unwrap()
}

fn write_replicas(home: &Home, name: &str, count: u16) {
    let mut config = home.read_json(&format!("instances/{name}/config.json")).unwrap();
    config["replicas"] = json!(count);
    home.write_config(name, &config.to_string());
}

#[test]
fn scaling_up_and_down_disturbs_no_stream_wherever_it_is() {
    let home = Home::fake();
    home.instance("chat", &slow());
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let first = home.engine_pid("chat");
    let mut streams = vec![Stream::chat(&daemon.address, "chat", TOKENS)];

    let told = home.ok(&["up", "--scale", "chat=3"]);
    assert!(told.stdout.contains("3 replicas"), "{told}");
    let three = pids(&home, "chat");
    assert!(three.len() == 3 && three[0] == first, "the first is not touched: {three:?}");
    // Each goes where most slots are free.
    streams.extend((0..2).map(|_| Stream::chat(&daemon.address, "chat", TOKENS)));
    wait_for("a token from each", SOON, || served(&home, "chat").iter().all(|tokens| *tokens > 0));

    home.ok(&["up", "--scale", "chat=1"]);
    assert_eq!(pids(&home, "chat"), [first]);
    assert_eq!(engines_in(home.path()).len(), 1, "who has drained is gone");
    for stream in streams {
        stream.finish(SOON).assert_complete(TOKENS as usize);
    }
    assert_eq!(home.json(&["config", "show", "chat", "--json"])["config"]["replicas"], 1);
    assert_eq!(home.describe("chat")["replicas"].as_array().unwrap().len(), 1);
}

#[test]
fn real_replicas_are_shown_logged_and_stopped_one_by_one_and_together() {
    let home = Home::real();
    home.instance("chat", &scaled(3));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);

    let shown = rows(&home, "chat");
    let ids: Vec<&str> = shown.iter().map(|row| row["replica_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["r0", "r1", "r2"]);
    let ports: BTreeSet<u64> = shown.iter().map(|row| row["port"].as_u64().unwrap()).collect();
    assert_eq!(ports.len(), 3);
    assert!(
        shown.iter().all(|row| row["health"] == "healthy" && row["restart_needed"] == false),
        "{shown:?}"
    );
    let table = home.ok(&["ps"]).stdout;
    for name in ["chat ", "chat/1 ", "chat/2 "] {
        assert!(table.lines().any(|line| line.starts_with(name)), "{table}");
    }
    let nodes = home.ok(&["ps", "--nodes"]).stdout;
    assert!(
        nodes.lines().skip(1).all(|line| line.ends_with(shown[0]["node_id"].as_str().unwrap())),
        "{nodes}"
    );
    assert_eq!(home.json(&["health", "chat", "--json"]).as_array().unwrap().len(), 3);
    assert_eq!(home.json(&["stats", "--json"]).as_array().unwrap().len(), 3);
    let about = home.describe("chat");
    assert!(about["replicas"].as_array().unwrap().iter().all(|it| it["process"]["ours"] == true), "{about}");
    assert!(home.ok(&["describe", "chat"]).stdout.contains("r2  running"));

    let reply = chat(&daemon.address, "chat");
    assert_eq!((reply.status, reply.header("x-llama-orch-instance")), (200, Some("chat")));
    assert!(reply.header("x-llama-orch-node").is_some());
    for number in ["1", "2"] {
        let log = home.ok(&["logs", "chat", "--replica", number]).stdout;
        assert_eq!(home.ok(&["logs", &format!("chat/{number}")]).stdout, log);
        assert!(!log.is_empty());
        assert!(home.read_json(&format!("run/engines/chat-r{number}.json")).is_some());
    }

    assert_eq!(home.run(&["up", "chat"]).exit_code, Some(21), "all of them run");
    home.ok(&["restart", "chat"]);
    assert!(pids(&home, "chat").iter().all(|pid| shown.iter().all(|row| row["pid"] != *pid)));
    home.ok(&["down", "chat"]);
    assert_eq!(engines_in(home.path()), []);
    assert_eq!(home.run(&["down", "chat"]).exit_code, Some(20));
    assert!(home.path().join("logs/chat/exit.r2.json").exists());
}

#[test]
fn a_replica_that_is_killed_is_started_again_and_the_others_go_on() {
    let home = Home::fake();
    home.instance("chat", &scaled(3));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let before = pids(&home, "chat");
    kill_hard(before[1]);
    wait_for("the next engine", SOON, || {
        let row = &rows(&home, "chat")[1];
        row["status"] == "running" && row["pid"] != before[1]
    });
    let after = rows(&home, "chat");
    let restarts: Vec<&Value> = after.iter().map(|row| &row["restarts"]).collect();
    assert_eq!(restarts, [&json!(0), &json!(1), &json!(0)]);
    assert_eq!((&after[0]["pid"], &after[2]["pid"]), (&json!(before[0]), &json!(before[2])));
    let crashes = home.events("chat").into_iter().filter(|event| event["event_type"] == "crashed");
    let crashes: Vec<Value> = crashes.collect();
    assert_eq!(crashes.len(), 1);
    assert_eq!(crashes[0]["meta"]["replica"], "r1", "{crashes:?}");
    assert_eq!(chat(&daemon.address, "chat").status, 200);
}

#[test]
fn a_daemon_finds_all_replicas_again_and_retires_what_became_too_many() {
    let home = Home::fake();
    home.instance("chat", &scaled(3));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let before = pids(&home, "chat");
    kill_hard(daemon.pid);
    wait_for("the end of the daemon", SOON, || !is_alive(daemon.pid));
    assert_eq!(pids(&home, "chat"), before, "engines belong to no daemon");

    let daemon = home.start_daemon();
    assert_eq!(pids(&home, "chat"), before);
    assert!(rows(&home, "chat").iter().all(|row| row["restarts"] == 0));
    for _ in 0..3 {
        assert_eq!(chat(&daemon.address, "chat").status, 200);
    }

    kill_hard(daemon.pid);
    wait_for("the end of the daemon", SOON, || !is_alive(daemon.pid));
    write_replicas(&home, "chat", 2);
    assert_eq!(pids(&home, "chat"), before, "one too many is shown as long as it lives");
    home.start_daemon();
    wait_for("the end of the one too many", SOON, || engines_in(home.path()).len() == 2);
    assert_eq!(pids(&home, "chat"), before[..2]);
    assert!(!is_alive(before[2]));
}

#[test]
fn without_a_daemon_all_replicas_are_started_scaled_and_stopped_too() {
    let home = Home::fake();
    home.instance("chat", &scaled(3));
    home.ok(&["up", "chat"]);
    let three = pids(&home, "chat");
    assert_eq!(three.len(), 3);
    assert_eq!(home.run(&["up", "chat"]).exit_code, Some(21));
    kill_hard(three[2]);
    wait_for("the end", SOON, || !is_alive(three[2]));
    home.ok(&["up", "chat"]);
    assert_eq!(pids(&home, "chat")[..2], three[..2], "only what was missing is started");

    home.ok(&["up", "--scale", "chat=1"]);
    assert_eq!(pids(&home, "chat"), three[..1]);
    home.ok(&["up", "chat", "--scale", "chat=2"]);
    assert_eq!(pids(&home, "chat")[..1], three[..1]);
    assert_eq!(engines_in(home.path()).len(), 2);
    assert_eq!(home.run(&["rm", "chat"]).exit_code, Some(21));
    home.ok(&["down", "chat"]);
    assert_eq!(engines_in(home.path()), []);
}

#[test]
fn a_config_that_is_edited_by_hand_scales_what_runs() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    home.start_daemon();
    write_replicas(&home, "chat", 2);
    wait_for("both rows", SOON, || rows(&home, "chat").len() == 2);
    assert_eq!(engines_in(home.path()), [], "what is stopped stays so");
    home.ok(&["up", "chat"]);
    let two = pids(&home, "chat");
    write_replicas(&home, "chat", 3);
    let is_up = |row: &Value| row["status"] == "running";
    wait_for("the third", SOON, || {
        let rows = rows(&home, "chat");
        rows.len() == 3 && rows.iter().all(is_up)
    });
    assert_eq!(pids(&home, "chat")[..2], two[..]);
    write_replicas(&home, "chat", 1);
    wait_for("the end of two", SOON, || rows(&home, "chat").len() == 1);
    assert_eq!(engines_in(home.path()).len(), 1);
    assert_eq!(pids(&home, "chat"), two[..1]);
}

#[test]
fn what_is_left_of_several_replicas_is_ended_by_name() {
    for with_daemon in [false, true] {
        let home = Home::fake();
        home.instance("chat", &scaled(2));
        if with_daemon {
            home.start_daemon();
        }
        home.ok(&["up", "chat"]);
        std::fs::remove_dir_all(home.path().join("instances/chat")).unwrap();
        assert_eq!(rows(&home, "chat").len(), 2, "with a daemon: {with_daemon}");
        home.ok(&["down", "chat"]);
        assert_eq!(engines_in(home.path()), [], "with a daemon: {with_daemon}");
    }
}

#[test]
fn each_device_has_an_engine_of_its_own() {
    let home = Home::fake();
    home.instance("chat", &json!({"gpu": {"backend": "cuda", "layers": 9}, "replicas": "per_device"}));
    let with_devices = |devices: &str, arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("FAKE_DEVICES", devices);
        testkit::run(command)
    };
    let refused = with_devices("Vulkan0: Toy (1024 MiB, 512 MiB free)", &["up", "chat"]);
    refused.expect_exit(11);
    assert!(refused.stderr.contains("no cuda device"), "{refused}");
    assert_eq!(engines_in(home.path()), []);
}

#[test]
fn engines_of_devices_see_one_device_each_and_those_of_other_backends_do_not_count() {
    let home = Home::fake();
    home.instance("chat", &json!({"gpu": {"backend": "cuda", "layers": 9}, "replicas": "per_device"}));
    let devices = "CUDA0: Toy (1024 MiB, 512 MiB free);CUDA1: Toy (1024 MiB, 512 MiB free);\
                   Vulkan0: Toy (1024 MiB, 512 MiB free)";
    for with_daemon in [false, true] {
        let with_devices = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            command.env("FAKE_DEVICES", devices);
            testkit::run(command)
        };
        if with_daemon {
            with_devices(&["daemon", "start"]).expect_exit(0);
        }
        with_devices(&["up", "chat"]).expect_exit(0);
        let shown = rows(&home, "chat");
        assert_eq!(shown.len(), 2, "with a daemon {with_daemon}: {shown:?}");
        for (number, row) in shown.iter().enumerate() {
            assert_eq!(row["device"], number, "{row}");
            let address = format!("127.0.0.1:{}", row["port"]);
            let process = http::get(&address, "/fake/process").unwrap().json();
            assert_eq!(process["environment"]["CUDA_VISIBLE_DEVICES"], number.to_string());
        }
        home.ok(&["down", "chat"]);
        assert_eq!(engines_in(home.path()), []);
    }
}

#[test]
fn several_instances_with_one_alias_are_a_pool() {
    let home = Home::fake();
    let aliased = json!({"aliases": ["any"], "replicas": 2, "env": {"FAKE_TOKEN_MS": "20"}});
    for name in ["one", "two"] {
        home.instance(name, &aliased);
    }
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let streams: Vec<Stream> = (0..4).map(|_| Stream::chat(&daemon.address, "any", TOKENS)).collect();
    for name in ["one", "two"] {
        wait_for("a token from each", SOON, || served(&home, name).iter().all(|tokens| *tokens > 0));
    }
    drop(streams);
    home.ok(&["down", "one"]);
    assert_eq!(chat(&daemon.address, "any").header("x-llama-orch-instance"), Some("two"));
}

#[test]
fn whoever_stops_the_instance_does_not_wait_for_the_farewell_of_a_replica_that_is_about_to_go() {
    let home = Home::fake();
    home.instance("chat", &json!({"replicas": 2, "env": {"FAKE_TOKEN_MS": "20"}}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    // A minute and more on each of both.
    let streams: Vec<Stream> = (0..2).map(|_| Stream::chat(&daemon.address, "chat", 10 * TOKENS)).collect();
    let scaling = home.spawn(&["up", "--scale", "chat=1"], "scaling.txt");
    let leaves = || rows(&home, "chat").get(1).is_some_and(|row| row["status"] == "stopping");
    wait_for("the second to take its leave", SOON, leaves);
    streams.iter().for_each(Stream::wait_for_more);
    let begun = Instant::now();
    home.ok(&["down", "chat", "--timeout", "1"]);
    assert!(begun.elapsed() < FAREWELL, "{:?}", begun.elapsed());
    assert_eq!(engines_in(home.path()), []);
    drop((streams, scaling));
}

#[test]
fn scales_that_race_leave_one_truth_and_nothing_behind() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    home.start_daemon();
    home.ok(&["up", "chat"]);
    let scale = |count: u16| format!("chat={count}");
    let commands: Vec<String> = [4, 1, 3, 2, 4, 1].map(scale).to_vec();
    let runs: Vec<Vec<&str>> = commands.iter().map(|it| vec!["up", "--scale", it.as_str()]).collect();
    for run in home.run_together(&runs) {
        // A replica may be wanted, and no longer be, while somebody waits for it.
        assert!(matches!(run.exit_code, Some(0 | 30)), "{run}");
    }
    let wanted = home.json(&["config", "show", "chat", "--json"])["config"]["replicas"].as_u64().unwrap();
    wait_for("what was written last", Duration::from_secs(60), || {
        let rows = rows(&home, "chat");
        rows.len() as u64 == wanted && rows.iter().all(|row| row["status"] == "running")
    });
    assert_eq!(engines_in(home.path()).len() as u64, wanted);
    home.ok(&["down", "chat"]);
    assert_eq!(engines_in(home.path()), []);
}

#[test]
fn a_scale_that_cannot_be_written_changes_nothing() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    home.run(&["up", "--scale", "chat=0"]).expect_exit(11);
    home.run(&["up", "--scale", "chat=65"]).expect_exit(11);
    home.run(&["up", "--scale", "chat=2", "--scale", "nobody=2"]).expect_exit(13);
    home.run(&["up", "--scale", "chat"]).expect_exit(2);
    assert!(home.read_json("instances/chat/config.json").unwrap().get("replicas").is_none());
    let planned = home.json(&["up", "--scale", "chat=2", "--dry-run", "--json"]);
    assert_eq!(planned.as_array().unwrap().len(), 2);
    assert!(home.read_json("instances/chat/config.json").unwrap().get("replicas").is_none());
    assert_eq!(engines_in(home.path()), []);
}
