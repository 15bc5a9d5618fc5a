//! What goes wrong is told by exit code and in words, stops only what it concerns, and looking changes nothing.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use support::SOON;
use support::home::Home;
use support::processes::{engines_in, is_port_free};
use support::stream::Stream;
use testkit::{ProgramRun, RunningEngine, wait_for};

/// `error: <what>`, perhaps `hint: <what to do>`, one line each, and nothing on stdout.
#[track_caller]
fn assert_told(run: &ProgramRun, code: i32, words: &[&str]) {
    run.expect_exit(code);
    assert_eq!(run.stdout, "", "{run}");
    let error = run.stderr.lines().next().unwrap_or_default();
    assert!(error.starts_with("error: "), "{run}");
    let hints = run.stderr.lines().skip(1);
    assert!(hints.clone().count() <= 1 && hints.clone().all(|line| line.starts_with("hint: ")), "{run}");
    for word in words {
        assert!(error.contains(word), "{word:?} is missing: {run}");
    }
}

#[test]
fn a_port_that_a_foreign_process_holds_is_told_with_its_pid_and_name_and_nothing_is_spawned() {
    let home = Home::real();
    let elsewhere = tempfile::tempdir().unwrap();
    let holder = RunningEngine::fake(elsewhere.path(), &[]);
    home.instance("a", &json!({"server": {"port": holder.port()}}));
    let pid = holder.pid().to_string();
    assert_told(&home.run(&["up", "a"]), 40, &[&pid, "fake-llama-server", &holder.port().to_string()]);
    home.start_daemon();
    assert_told(&home.run(&["up", "a"]), 40, &[&pid, "fake-llama-server"]);
    assert_eq!(engines_in(home.path()), []);
    assert!(!home.path().join("logs/a/stderr.log").exists(), "an engine was spawned");
    // The refusal left the wish as it was: nobody will try again.
    assert_eq!(home.ps("a")["desired_state"], "stopped");
}

#[test]
fn an_unknown_name_is_one_line() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    for with_daemon in [false, true] {
        if with_daemon {
            home.start_daemon();
        }
        for command in ["up", "down", "restart", "rm", "logs", "describe", "health"] {
            let run = home.run(&[command, "nobody"]);
            assert_told(&run, 13, &["nobody"]);
            assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{run}");
        }
    }
}

#[test]
fn a_missing_engine_is_told_with_what_to_do() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    let mut command = home.command(&["up", "a"]);
    command.env_remove("LLAMA_SERVER").env("PATH", home.scratch());
    let run = testkit::run(command);
    assert_told(&run, 50, &[]);
    assert!(run.stderr.contains("hint: ") && run.stderr.contains("engine install"), "{run}");
    // An exact version is never replaced by another one.
    home.instance("pinned", &json!({"binary": {"version": "b1"}}));
    assert_told(&home.run(&["up", "pinned"]), 50, &["b1"]);
}

#[test]
fn one_broken_config_is_told_with_its_place_and_the_others_go_on_working() {
    let home = Home::real();
    home.instance("good", &json!({}));
    home.write_config("torn", "{\"name\": \"torn\", \n  \"model\": ");
    home.write_config(
        "odd",
        &json!({"name": "odd", "model": {"path": home.model(), "threads": 0}, "server": {"port": 80}})
            .to_string(),
    );
    assert_told(&home.run(&["up", "torn"]), 12, &["torn"]);
    assert_told(&home.run(&["up", "odd"]), 11, &["model.threads"]);
    let odd = home.path().join("instances/odd/config.json");
    let torn = home.path().join("instances/torn/config.json");
    let validated = home.run(&["config", "validate", odd.to_str().unwrap(), "--json"]);
    validated.expect_exit(11);
    let fields: Vec<String> = validated.json()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["field"].as_str().map(str::to_owned))
        .collect();
    assert!(
        fields.iter().any(|it| it == "model.threads") && fields.iter().any(|it| it == "server.port"),
        "{fields:?}"
    );
    home.run(&["config", "validate", torn.to_str().unwrap()]).expect_exit(12);
    home.run(&["config", "validate"]).expect_exit(11);

    let daemon = home.start_daemon();
    assert_told(&home.run(&["up", "torn"]), 12, &["torn"]);
    assert_told(&home.run(&["up", "odd"]), 11, &["model.threads"]);
    home.ok(&["up", "good"]);
    Stream::chat(&daemon.address, "good", 20).finish(SOON).assert_complete(20);
    assert_eq!(home.ps("good")["status"], "running");

    // A config that breaks while its engine runs takes nothing away from it.
    let config = home.path().join("instances/good/config.json");
    let whole = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, &whole[..whole.len() / 2]).unwrap();
    home.run(&["up", "torn"]).expect_exit(12);
    Stream::chat(&daemon.address, "good", 20).finish(SOON).assert_complete(20);
    std::fs::write(&config, whole).unwrap();
    home.ok(&["down", "good"]);
}

#[test]
fn an_engine_that_dies_while_it_loads_is_quoted() {
    let home = Home::fake();
    home.instance(
        "a",
        &json!({"env": {
            "FAKE_EXIT_AT": "loaded", "FAKE_EXIT_CODE": "7", "FAKE_LAST_WORDS": "error: no room for tensors",
        }}),
    );
    assert_told(&home.run(&["up", "a"]), 30, &["7", "no room for tensors"]);
    assert_eq!(home.describe("a")["last_exit_code"], 7);
}

#[test]
fn a_model_that_is_missing_or_none_is_refused_before_anything_is_spawned() {
    let home = Home::fake();
    let fake = home.scratch().join("fake.gguf");
    std::fs::write(&fake, "not a model").unwrap();
    let port = home.instance("gone", &json!({"model": {"path": home.scratch().join("gone.gguf")}}));
    home.instance("none", &json!({"model": {"path": fake}}));
    assert_told(&home.run(&["up", "gone"]), 54, &["gone.gguf"]);
    assert_told(&home.run(&["up", "none"]), 55, &["fake.gguf"]);
    assert!(is_port_free(port));
}

/// Everything in a home: path → kind, permissions, time of change and content; SQLite's two side files left out.
fn inventory(home: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let (path, about) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(home).unwrap().display().to_string();
            if name.ends_with("-wal") || name.ends_with("-shm") {
                continue;
            }
            if about.is_dir() {
                all.insert(name, format!("{:?}", about.permissions()));
                folders.push(path);
            } else {
                let content = std::fs::read(&path).unwrap();
                all.insert(
                    name,
                    format!("{:?} {:?} {content:?}", about.permissions(), about.modified().unwrap()),
                );
            }
        }
    }
    all
}

const READS: &[&[&str]] = &[
    &["ps"],
    &["ps", "--all", "--json"],
    &["describe", "a"],
    &["describe", "a", "--json"],
    &["health"],
    &["health", "a", "--json"],
    &["logs", "a"],
    &["logs", "a", "--since", "1h", "--stream", "stderr", "-n", "5"],
    &["events"],
    &["events", "--instance", "a", "--json"],
    &["config", "validate"],
    &["config", "lint"],
    &["config", "show", "a"],
    &["config", "schema"],
    &["daemon", "status"],
    &["engine", "list"],
    &["completions", "bash"],
    &["up", "a", "--dry-run"],
    &["--help"],
    &["--version"],
];

#[track_caller]
fn assert_reads_change_nothing(home: &Home) {
    let before = inventory(home.path());
    for arguments in READS {
        let run = home.run(arguments);
        assert!(!run.stderr.contains("panicked"), "{arguments:?}: {run}");
        let after = inventory(home.path());
        for (path, content) in &before {
            assert!(after.get(path) == Some(content), "{arguments:?} changed {path}");
        }
        let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        assert!(new.is_empty(), "{arguments:?} made {new:?}");
    }
}

/// A moment after an engine is ready its shim has written the handoff file and the times of the last lines.
fn has_settled(home: &Path) -> bool {
    let read = |path: &str| std::fs::read_to_string(home.join(path)).unwrap_or_default();
    let noted = read("logs/a/stderr.log.index");
    let noted = noted.lines().last().and_then(|line| line.split(' ').next()).and_then(|it| it.parse().ok());
    noted == Some(read("logs/a/stderr.log").len()) && home.join("run/engines/a-r0.json").exists()
}

#[test]
fn looking_changes_no_byte_of_a_home() {
    let home = Home::fake();
    home.instance("a", &json!({}));
    home.write_config("torn", "{");
    // A home that was never written to, then one with a history, then one whose engine runs.
    assert_reads_change_nothing(&home);
    home.ok(&["up", "a"]);
    wait_for("the shim to have noted all", SOON, || has_settled(home.path()));
    assert_reads_change_nothing(&home);
    home.ok(&["down", "a"]);
    assert_reads_change_nothing(&home);
}

#[test]
fn looking_where_there_is_no_home_creates_none() {
    let home = Home::fake();
    let nowhere = home.scratch().join("nowhere");
    for arguments in READS {
        let mut command = home.command(arguments);
        command.env("LLAMA_ORCH_HOME", &nowhere);
        let run = testkit::run(command);
        assert!(!run.stderr.contains("panicked"), "{arguments:?}: {run}");
        assert!(!nowhere.exists(), "{arguments:?} made a home");
    }
    let mut ps = home.command(&["ps", "--json"]);
    ps.env("LLAMA_ORCH_HOME", &nowhere);
    assert_eq!(testkit::run(ps).expect_exit(0).json(), json!([]));
}
