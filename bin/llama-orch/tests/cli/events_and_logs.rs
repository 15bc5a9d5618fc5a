//! What was said and what happened, once and as it comes.

use std::fs;

use testkit::cli_snapshot;

use crate::scene::{Attached, add_instance, home_with_engine};

#[test]
fn events_tell_an_instances_life_newest_first() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    cli_snapshot!(home, ["events", "--instance", "chat"], @r"
    exit code: 0
    ----- stdout -----
    [TIME]  info     chat              instance_stopped   stopped
    [TIME]  info     chat              instance_started   started as pid [PID] on port [PORT]

    ----- stderr -----
    ");
    let events = home.llama_orch(&["events", "--json", "--type", "instance_started"]).expect_exit(0).json();
    let event = &events[0];
    for field in ["id", "ts", "instance", "level", "event_type", "message", "meta"] {
        assert!(event.get(field).is_some(), "{field} is missing in {event}");
    }
    assert_eq!(home.llama_orch(&["events", "--json", "--limit", "1"]).json().as_array().unwrap().len(), 1);
    assert_eq!(home.llama_orch(&["events", "--json", "--level", "error"]).json(), serde_json::json!([]));
}

#[test]
fn followed_events_come_oldest_first_as_they_happen() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let followed = Attached::start(&home, &["events", "-f", "--json"]);
    followed.wait_for("what happened before", |text| text.contains("engine_installed"));
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    followed.wait_for("the end of the instance", |text| text.contains("instance_stopped"));
    assert_eq!(followed.interrupt(), Some(130));
    let ids: Vec<i64> = followed
        .output()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_i64().unwrap())
        .collect();
    assert!(ids.is_sorted() && ids.len() >= 3, "{ids:?}");
}

#[test]
fn the_last_lines_of_a_log_are_shown_and_the_next_ones_followed() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let folder = home.layout().instance_logs(&"chat".parse().unwrap());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("stderr.log"), "one\ntwo\nthree\n").unwrap();
    fs::write(folder.join("stdout.log"), "answer\n").unwrap();
    assert_eq!(home.llama_orch(&["logs", "chat", "-n", "2", "--stream", "stderr"]).stdout, "two\nthree\n");
    assert_eq!(home.llama_orch(&["logs", "chat", "--stream", "stdout"]).stdout, "answer\n");
    assert_eq!(home.llama_orch(&["logs", "chat", "--since", "2999-01-01T00:00:00Z"]).exit_code, Some(0));
    let line = home.llama_orch(&["logs", "chat", "--json", "--stream", "stdout"]).json();
    assert_eq!((&line["stream"], &line["text"]), (&"stdout".into(), &"answer".into()));

    let followed = Attached::start(&home, &["logs", "-f", "chat", "-n", "1", "--stream", "stderr"]);
    followed.wait_for("the last line", |text| text == "three\n");
    let mut log = fs::OpenOptions::new().append(true).open(folder.join("stderr.log")).unwrap();
    std::io::Write::write_all(&mut log, b"four\n").unwrap();
    followed.wait_for("the next line", |text| text == "three\nfour\n");
    assert_eq!(followed.interrupt(), Some(130));
}

#[test]
fn following_goes_on_across_a_restart() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[("FAKE_LOG_EVERY_MS", "20")]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let followed = Attached::start(&home, &["logs", "-f", "chat", "-n", "0"]);
    followed.wait_for("the first engine", |text| text.lines().count() > 3);
    home.llama_orch(&["restart", "chat"]).expect_exit(0);
    let before = followed.output().lines().count();
    followed.wait_for("the second engine", |text| text.lines().count() > before + 5);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
}

#[test]
fn cleaning_removes_what_is_old_and_not_in_use() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let folder = home.layout().instance_logs(&"chat".parse().unwrap());
    fs::write(folder.join("stderr.log.1"), "old").unwrap();
    home.llama_orch(&["logs", "clean"]).expect_exit(0);
    assert!(folder.join("stderr.log.1").exists(), "it is not a week old");
    let run = home.llama_orch(&["logs", "clean", "chat", "--older-than", "0"]);
    assert!(run.expect_exit(0).stdout.contains("1 files removed"), "{run}");
    assert!(folder.join("stderr.log").exists(), "the engine writes to it");
    home.llama_orch(&["logs", "clean", "nobody"]).expect_exit(13);
}

#[test]
fn describe_tells_process_exit_events_and_paths() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let document = home.llama_orch(&["describe", "chat", "--json"]).expect_exit(0).json();
    for field in
        ["config", "effective_command", "env", "runtime", "process", "events", "health_history", "paths"]
    {
        assert!(document.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(document["process"]["ours"], true);
    let sheet = home.llama_orch(&["describe", "chat"]).expect_exit(0).stdout.clone();
    for part in ["status:", "command\n", "process\n", "events\n", "paths\n", "--alias chat"] {
        assert!(sheet.contains(part), "{part} is missing in\n{sheet}");
    }
}

#[test]
fn cleaning_reaches_replicas_instances_that_are_gone_and_the_daemon() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let logs = home.layout().logs();
    for file in ["chat/stdout.r1.log", "gone/stderr.log", "gone/stderr.log.1", "daemon.log.1", "daemon.log"] {
        let path = logs.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "old").unwrap();
    }
    fs::write(logs.join("gone/notes.txt"), "mine").unwrap();
    let run = home.llama_orch(&["logs", "clean", "--older-than", "0", "--json"]);
    assert_eq!(run.expect_exit(0).json()["freed_bytes"], 12, "{run}");
    assert!(logs.join("daemon.log").exists() && logs.join("gone/notes.txt").exists());
    assert!(!logs.join("gone/stderr.log").exists() && !logs.join("chat/stdout.r1.log").exists());
}

#[test]
fn logs_over_a_gigabyte_are_warned_of_and_their_tail_is_quick() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let folder = home.layout().instance_logs(&"chat".parse().unwrap());
    fs::create_dir_all(&folder).unwrap();
    let mut log = fs::File::create(folder.join("stderr.log")).unwrap();
    std::io::Seek::seek(&mut log, std::io::SeekFrom::Start(2_000_000_000)).unwrap();
    std::io::Write::write_all(&mut log, b"\nlast\n").unwrap();
    let run = home.llama_orch(&["logs", "chat", "-n", "1"]);
    assert_eq!(run.expect_exit(0).stdout, "last\n");
    assert!(run.stderr.contains("all logs together take 1.9 GiB; llama-orch logs clean"), "{run}");
    let up = home.llama_orch(&["up", "chat"]);
    assert!(up.expect_exit(0).stderr.contains("all logs together take"), "{up}");
}

/// Absolute templates lead anywhere: here to a file system without any room.
#[cfg(target_os = "linux")]
#[test]
fn a_start_without_room_for_logs_is_refused() {
    let small = std::path::Path::new("/sys");
    let Some(free) = engine_process::free_space(small).filter(|free| free.0 < 100 * 1024 * 1024) else {
        eprintln!("SKIPPED: {} is no small file system here", small.display());
        return;
    };
    let home = home_with_engine();
    let (model, log) = (home.tiny_model(), small.join("{name}.log"));
    home.write_instance(
        "chat",
        &serde_json::json!({
            "name": "chat",
            "model": {"path": model},
            "server": {"port": testkit::free_port()},
            "logs": {"stderr": log},
        }),
    );
    let run = home.llama_orch(&["up", "chat"]);
    let error = crate::scene::only_error(run.expect_exit(30));
    assert!(error.contains(&format!("only {free} are free for logs")), "{run}");
}
