//! The state database as commands and the daemon meet it: the older tool's, a lost one, one made anew.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use orch_core::UnixMillis;
use serde_json::{Value, json};
use testkit::{OldHome, TempHome, fake_engine, free_port, http, wait_for};

use crate::scene::{add_instance, home_with_engine, is_alive, only_error, picture, row};

const SOON: Duration = Duration::from_secs(30);

/// The daemon on a free port.
fn start_daemon(home: &TempHome) -> String {
    let address = format!("127.0.0.1:{}", free_port());
    home.llama_orch(&["daemon", "start", "--addr", &address]).expect_exit(0);
    address
}

fn messages(home: &TempHome) -> String {
    let events = home.llama_orch(&["events", "--json"]).expect_exit(0).json();
    let told = events.as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap());
    told.collect::<Vec<_>>().join("\n")
}

#[test]
fn reading_an_older_home_changes_no_byte_and_shows_its_state() {
    let home = TempHome::new();
    let written = OldHome { instances: 16, ..OldHome::default() }.write(home.path());
    let before = picture(home.path());
    let rows = home.llama_orch(&["ps", "--all", "--json"]).expect_exit(0).json();
    assert_eq!(rows.as_array().unwrap().len(), 16);
    assert!(rows.as_array().unwrap().iter().all(|row| row["pid"].is_null()), "{rows}");
    assert!(!home.llama_orch(&["events", "--json"]).expect_exit(0).json().as_array().unwrap().is_empty());
    home.llama_orch(&["describe", &written[0].name]).expect_exit(0);
    assert!(picture(home.path()) == before, "a reading command has changed something");
}

/// The engine as the older tool started it: no shim, no lock, a pid in a database without start marks.
fn engine_of_the_older_tool(home: &TempHome, name: &str, port: u16) -> std::process::Child {
    let engine = home.scratch().join("llama-server");
    fs::copy(fake_engine(), &engine).unwrap();
    let child = std::process::Command::new(engine)
        .args(["--model", &home.tiny_model().display().to_string(), "--host", "127.0.0.1"])
        .args(["--port", &port.to_string(), "--alias", name, "--parallel", "1"])
        .current_dir(home.scratch())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the engine to answer", SOON, || http::get(&format!("127.0.0.1:{port}"), "/health").is_ok());
    child
}

fn write_old_state(home: &TempHome, name: &str, pid: u32, port: u16) {
    fs::create_dir_all(home.layout().state()).unwrap();
    let connection = rusqlite::Connection::open(home.layout().database()).unwrap();
    let now = UnixMillis::now().0;
    let sql = format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT);
         INSERT INTO schema_info VALUES ('version', '3');
         CREATE TABLE runtime (name TEXT PRIMARY KEY, pid INTEGER, port INTEGER, status TEXT, health TEXT, started_at REAL);
         INSERT INTO runtime VALUES ('{name}', {pid}, {port}, 'running', 'healthy', {now} / 1000.0),
             ('gone', 4194000, 1, 'running', 'healthy', {now} / 1000.0);"
    );
    connection.execute_batch(&sql).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_that_the_older_tool_started_is_seen_adopted_and_stopped() {
    let home = home_with_engine();
    let port = add_instance(&home, "chat", &[]);
    add_instance(&home, "gone", &[]);
    let mut engine = engine_of_the_older_tool(&home, "chat", port);
    let _ = fs::remove_file(home.layout().database());
    write_old_state(&home, "chat", engine.id(), port);

    // In place, before anything is migrated.
    let seen = row(&home, "chat");
    assert_eq!((&seen["status"], &seen["desired_state"]), (&json!("running"), &json!("running")), "{seen}");
    assert_eq!(seen["pid"], json!(engine.id()));
    let gone = row(&home, "gone");
    assert_eq!((&gone["status"], &gone["desired_state"]), (&json!("stopped"), &json!("stopped")), "{gone}");
    assert!(!home.layout().state().join("state.sqlite.v3.backup").exists());

    // The daemon is the first to write.
    let address = start_daemon(&home);
    let adopted = row(&home, "chat");
    assert_eq!((&adopted["pid"], &adopted["health"]), (&json!(engine.id()), &json!("healthy")), "{adopted}");
    assert!(home.layout().state().join("state.sqlite.v3.backup").exists());
    assert!(messages(&home).contains("migrated from version 3"), "{}", messages(&home));
    let question = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]});
    wait_for("requests to be routed to it", SOON, || {
        http::post_json(&address, "/v1/chat/completions", &question).is_ok_and(|answer| answer.status == 200)
    });

    // Reaped as it ends, as the init process would.
    let pid = json!(engine.id());
    std::thread::scope(|scope| {
        scope.spawn(|| engine.wait());
        home.llama_orch(&["down", "chat"]).expect_exit(0);
    });
    assert!(!is_alive(&pid));
    assert_eq!(row(&home, "chat")["status"], "stopped");
}

#[test]
fn the_first_command_that_writes_migrates_and_later_ones_find_nothing_to_do() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let _ = fs::remove_file(home.layout().database());
    write_old_state(&home, "chat", 4_194_001, 1);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    let backups = fs::read_dir(home.layout().state()).unwrap();
    let names = backups.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".backup")).count(), 1);
    assert_eq!(messages(&home).matches("migrated from version 3").count(), 1);
}

#[test]
fn a_newer_database_is_refused_by_reads_and_writes_and_stays_as_it_is() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let _ = fs::remove_file(home.layout().database());
    write_old_state(&home, "chat", 1, 1);
    let connection = rusqlite::Connection::open(home.layout().database()).unwrap();
    connection.execute("UPDATE schema_info SET value = '4'", []).unwrap();
    drop(connection);
    let before = fs::read(home.layout().database()).unwrap();
    for command in [&["ps"][..], &["up", "chat"], &["config", "init"], &["daemon", "start", "--foreground"]] {
        let refused = home.llama_orch(command);
        refused.expect_exit(34);
        assert!(only_error(&refused).contains("version 4 of the older tool"), "{refused}");
    }
    assert!(fs::read(home.layout().database()).unwrap() == before);
    home.llama_orch(&["config", "init", "--force"]).expect_exit(0);
    assert!(fs::read(home.layout().state().join("state.sqlite.backup")).unwrap() == before);
    home.llama_orch(&["ps"]).expect_exit(0);
}

#[test]
fn the_database_is_not_made_anew_under_a_living_daemon_even_when_its_file_is_lost() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    start_daemon(&home);
    for lost in [false, true] {
        if lost {
            fs::remove_file(home.layout().daemon_file()).unwrap();
        }
        let refused = home.llama_orch(&["config", "init", "--force"]);
        refused.expect_exit(61);
        assert!(only_error(&refused).contains("is already running (pid"), "{refused}");
        assert!(refused.stderr.contains("daemon stop"), "{refused}");
        assert!(!home.layout().state().join("state.sqlite.backup").exists());
    }
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    home.llama_orch(&["config", "init", "--force"]).expect_exit(0);
    home.llama_orch(&["ps"]).expect_exit(0);
}

fn degraded(address: &str) -> Value {
    http::get(address, "/ready").unwrap().json()["degraded"].clone()
}

#[cfg(unix)]
#[test]
fn a_daemon_whose_database_is_deleted_serves_on_and_writes_it_again() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let address = start_daemon(&home);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let pid = row(&home, "chat")["pid"].clone();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(home.layout().state().join(format!("state.sqlite{suffix}"))).unwrap();
    }
    let question = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(http::post_json(&address, "/v1/chat/completions", &question).unwrap().status, 200);
    wait_for("the database to be there again", SOON, || home.layout().database().exists());
    wait_for("an event to say so", SOON, || messages(&home).contains("was deleted; it is written again"));
    assert_eq!(degraded(&address), json!([]));

    // What is wanted was not lost: the next daemon knows it, and so does a crash.
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    let seen = row(&home, "chat");
    assert_eq!((&seen["desired_state"], &seen["pid"]), (&json!("running"), &pid), "{seen}");
    home.llama_orch(&["down", "chat"]).expect_exit(0);
}

#[cfg(unix)]
#[test]
fn a_daemon_whose_database_cannot_be_used_serves_on_and_says_so_on_ready() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let address = start_daemon(&home);
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    let garbage: PathBuf = home.path().join("garbage");
    fs::write(&garbage, "no database at all").unwrap();
    fs::rename(garbage, home.layout().database()).unwrap();
    wait_for("/ready to admit it", SOON, || degraded(&address) == json!(["store"]));
    let question = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(http::post_json(&address, "/v1/chat/completions", &question).unwrap().status, 200);
    assert_eq!(fs::read_to_string(home.layout().database()).unwrap(), "no database at all");
    fs::remove_file(home.layout().database()).unwrap();
    wait_for("/ready to be content", SOON, || degraded(&address) == json!([]));
    assert_eq!(row(&home, "chat")["desired_state"], "running");
}

#[cfg(unix)]
#[test]
fn the_daemons_own_log_is_rotated_while_it_runs() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    start_daemon(&home);
    let log = home.layout().daemon_log();
    let large = 11 * 1024 * 1024;
    fs::OpenOptions::new().append(true).open(&log).unwrap().set_len(large).unwrap();
    let rotated = home.layout().logs().join("daemon.log.1");
    wait_for("the log to be rotated", SOON, || fs::metadata(&log).is_ok_and(|file| file.len() < large));
    assert!(fs::metadata(&rotated).unwrap().len() >= large);
    let end = || fs::read_to_string(&log).unwrap();
    home.llama_orch(&["daemon", "stop"]).expect_exit(0);
    assert!(end().contains("engines keep running"), "it no longer writes there: {}", end());
}

#[test]
fn a_daemon_tells_its_memory_in_its_log_and_its_status() {
    let home = home_with_engine();
    start_daemon(&home);
    let status = home.llama_orch(&["daemon", "status", "--json"]).expect_exit(0).json();
    assert!(status["rss_bytes"].as_u64().unwrap() > 0, "{status}");
    let log = || fs::read_to_string(home.layout().daemon_log()).unwrap_or_default();
    wait_for("the log to tell it", SOON, || log().contains("housekeeping resident="));
}
