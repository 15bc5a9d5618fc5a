//! Databases of the older tool: made with plain SQL as it made them, and read in place.

use std::fs;

use orch_core::{DesiredState, EventLevel, ExitCode, Health, HomeLayout, Status, UnixMillis};
use rusqlite::Connection;
use state_store::{DatabaseKind, EventQuery, StateReader, inspect};

use crate::traces::snapshot;
use crate::{FIRST, name, temp_home};

/// The plan's first version: no `schema_info`, one table.
pub(crate) const FIRST_VERSION: &str = "
CREATE TABLE instances (name TEXT PRIMARY KEY, pid INTEGER, start_time REAL, status TEXT, health TEXT,
    last_health_check REAL, restart_count INTEGER, config_hash TEXT);
INSERT INTO instances VALUES ('gemma', 4711, 1700000000.25, 'running', 'healthy', 1700000060.5, 3, 'deadbeef'),
    ('quiet', NULL, NULL, 'stopped', 'unknown', NULL, 0, NULL);
";

/// The third version with everything: identities, runtime rows of which one has no instance, events, checks.
pub(crate) const THIRD_VERSION: &str = "
CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT);
INSERT INTO schema_info VALUES ('version', '3');
CREATE TABLE instances (name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER,
    status TEXT DEFAULT 'stopped', health TEXT DEFAULT 'unknown', start_time REAL, last_health_check REAL,
    restart_count INTEGER, config_hash TEXT, error_message TEXT, updated_at REAL);
CREATE TABLE runtime (name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER,
    port INTEGER, cmdline TEXT, binary_version TEXT, status TEXT, health TEXT, started_at REAL, last_seen_at REAL,
    last_health_ok_at REAL, restart_attempts INTEGER, last_exit_code INTEGER, last_error TEXT);
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL, instance_name TEXT, instance_uid TEXT, level TEXT,
    event_type TEXT, message TEXT, meta_json TEXT);
CREATE TABLE health_history (id INTEGER PRIMARY KEY AUTOINCREMENT, instance_name TEXT, instance_uid TEXT, health TEXT,
    response_time_ms REAL, error_message TEXT, checked_at REAL);
CREATE INDEX events_by_time ON events (ts);
CREATE TRIGGER tidy AFTER DELETE ON instances BEGIN DELETE FROM runtime WHERE name = old.name; END;
CREATE VIEW running AS SELECT name FROM runtime WHERE status = 'running';
INSERT INTO instances (name, instance_uid, instance_no, pid, status, restart_count, config_hash, updated_at) VALUES
    ('gemma', '6f1c4c2e-0000-1000-8000-000000000001', '00000001', 1, 'stopped', 2, 'deadbeef', 1700000000.5);
INSERT INTO runtime VALUES
    ('gemma', '6f1c4c2e-0000-1000-8000-000000000001', '00000001', 'Gemma', 4711, 8001,
     '[\"llama-server\", \"--port\", \"8001\", \"--api-key\", \"hunter22\"]', 'b4000', 'running', 'healthy',
     1700000001.001, 1700000061.5, 1700000061.5, 1, NULL, NULL),
    ('qwen', NULL, NULL, NULL, 4712, 8002, 'llama-server --port 8002 --api-key hunter22', 'b4000', 'running',
     'unhealthy', 1700000002, 1700000062, NULL, 0, NULL, NULL),
    ('broken', NULL, NULL, NULL, NULL, 8003, NULL, NULL, 'error', 'error', NULL, NULL, NULL, 5, 1, 'model missing');
INSERT INTO events (ts, instance_name, level, event_type, message, meta_json) VALUES
    (1700000001.001, 'gemma', 'INFO', 'start', 'started', '{\"pid\": 4711}'),
    (1700000001.002, 'gone', 'warn', 'crash', 'crashed', '{\"code\": 1}'),
    (1700000001.0024, 'gone', 'critical', 'crash', 'crashed again', 'no json'),
    (1700000001.003, NULL, 'info', 'daemon', NULL, NULL);
INSERT INTO health_history (instance_name, health, response_time_ms, error_message, checked_at) VALUES
    ('gemma', 'healthy', 3.4, NULL, 1700000061.5), ('gone', 'healthy', 1, NULL, 1700000061.5);
";

/// Writes the database with plain SQL and returns its bytes.
pub(crate) fn write_database(home: &HomeLayout, sql: &str) -> Vec<u8> {
    fs::create_dir_all(home.state()).unwrap();
    let connection = Connection::open(home.database()).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    fs::read(home.database()).unwrap()
}

fn reader_of(home: &HomeLayout, sql: &str) -> StateReader {
    write_database(home, sql);
    StateReader::open(home).unwrap().unwrap()
}

#[test]
fn the_first_version_is_read_in_place() {
    let (_folder, home) = temp_home();
    let reader = reader_of(&home, FIRST_VERSION);
    assert_eq!(inspect(&home).unwrap(), DatabaseKind::Older { version: 1 });
    let names: Vec<String> = reader.instances().unwrap().iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["gemma", "quiet"]);
    assert_eq!(reader.desired(&name("quiet")).unwrap(), Some(DesiredState::Stopped));
    let gemma = reader.runtime(&name("gemma"), FIRST).unwrap().unwrap();
    assert_eq!((gemma.pid, gemma.restarts), (Some(4711), 3));
    assert_eq!((gemma.status, gemma.health), (Status::Running, Health::Healthy));
    assert_eq!(gemma.started_at, Some(UnixMillis(1_700_000_000_250)));
    assert_eq!(gemma.last_seen_at, Some(UnixMillis(1_700_000_060_500)));
    assert_eq!(gemma.config_hash, None, "the older tool's hash means something else");
    assert!(reader.events(&EventQuery::default()).unwrap().is_empty());
    assert!(reader.health_history(&name("gemma"), 9).unwrap().is_empty());
}

#[test]
fn the_third_version_is_read_in_place_and_the_runtime_row_is_the_younger_truth() {
    let (_folder, home) = temp_home();
    let reader = reader_of(&home, THIRD_VERSION);
    assert_eq!(inspect(&home).unwrap(), DatabaseKind::Older { version: 3 });
    let gemma = reader.runtime(&name("gemma"), FIRST).unwrap().unwrap();
    assert_eq!((gemma.pid, gemma.port, gemma.status), (Some(4711), Some(8001), Status::Running));
    assert_eq!((gemma.restarts, gemma.restart_attempts), (2, 1));
    assert_eq!(gemma.engine_version.as_deref(), Some("b4000"));
    assert_eq!(reader.instance(&name("gemma")).unwrap().unwrap().uid, "6f1c4c2e-0000-1000-8000-000000000001");
    let checks = reader.health_history(&name("gemma"), 9).unwrap();
    assert_eq!((checks[0].response_time_ms, checks[0].checked_at), (Some(3), UnixMillis(1_700_000_061_500)));
}

#[test]
fn a_runtime_row_without_an_instance_row_is_an_instance() {
    let (_folder, home) = temp_home();
    let reader = reader_of(&home, THIRD_VERSION);
    let names: Vec<String> = reader.instances().unwrap().iter().map(|row| row.name.to_string()).collect();
    assert_eq!(names, ["broken", "gemma", "qwen"]);
    let broken = reader.runtime(&name("broken"), FIRST).unwrap().unwrap();
    assert_eq!((broken.status, broken.last_exit_code), (Status::Error, Some(1)));
    assert_eq!(broken.last_error.as_deref(), Some("model missing"));
}

#[test]
fn a_secret_in_an_old_command_line_is_masked_in_both_of_its_forms() {
    let (_folder, home) = temp_home();
    let reader = reader_of(&home, THIRD_VERSION);
    for (instance, port) in [("gemma", 8001), ("qwen", 8002)] {
        let line = reader.runtime(&name(instance), FIRST).unwrap().unwrap().cmdline.unwrap();
        assert_eq!(line, format!("llama-server --port {port} --api-key ********"));
    }
}

#[test]
fn old_events_are_told_apart_to_the_millisecond_and_their_levels_are_ours() {
    let (_folder, home) = temp_home();
    let reader = reader_of(&home, THIRD_VERSION);
    let oldest_first = EventQuery { newest_first: false, ..EventQuery::default() };
    let events = reader.events(&oldest_first).unwrap();
    let told: Vec<(i64, EventLevel, &str)> =
        events.iter().map(|row| (row.ts.0 - 1_700_000_001_000, row.level, row.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, EventLevel::Info, "started"),
            (2, EventLevel::Warning, "crashed"),
            (2, EventLevel::Error, "crashed again"),
            (3, EventLevel::Info, "")
        ]
    );
    assert_eq!(events[1].instance.as_deref(), Some("gone"));
    let only = EventQuery { instance: Some(name("gemma")), ..EventQuery::default() };
    assert_eq!(reader.events(&only).unwrap().len(), 1);
    let since = EventQuery { since: Some(UnixMillis(1_700_000_001_003)), ..EventQuery::default() };
    assert_eq!(reader.events(&since).unwrap().len(), 1);
}

#[test]
fn reading_a_database_of_the_older_tool_changes_no_byte() {
    for mode in ["DELETE", "WAL"] {
        let (folder, home) = temp_home();
        write_database(&home, &format!("PRAGMA journal_mode = {mode}; {THIRD_VERSION}"));
        let before = snapshot(folder.path());
        let reader = StateReader::open(&home).unwrap().unwrap();
        reader.runtimes().unwrap();
        reader.events(&EventQuery::default()).unwrap();
        drop(reader);
        inspect(&home).unwrap();
        state_store::preview(&home, &mut |_| None).unwrap().unwrap();
        assert!(snapshot(folder.path()) == before, "{mode}");
    }
}

#[test]
fn hostile_values_in_an_old_database_are_left_out_and_the_rest_is_read() {
    let (_folder, home) = temp_home();
    let sql = "
        CREATE TABLE runtime (name, pid, port, status, health, started_at, restart_attempts, last_exit_code, cmdline);
        CREATE TABLE instances (name, restart_count, updated_at);
        CREATE TABLE schema_info (key, value);
        INSERT INTO runtime VALUES ('good', 'many', 700000, 'dancing', 7, 'noon', -3, 1e99, x'00ff'),
            ('good', 1, 1, 'running', 'healthy', 1, 1, 1, 'twice'), ('Bad Name', 1, 8001, 'running', NULL, 1, 0, 0, ''),
            (NULL, 1, 1, '', '', 1, 1, 1, ''), (x'41', 1, 1, '', '', 1, 1, 1, ''), ('all', 1, 1, '', '', 1, 1, 1, '');
        INSERT INTO instances VALUES ('good', 99999999999, 9e999);";
    let reader = reader_of(&home, sql);
    let rows = reader.runtimes().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].restarts, 0);
    let preview = state_store::preview(&home, &mut |_| None).unwrap().unwrap();
    assert_eq!(preview.ignored, ["", "A", "Bad Name", "all"]);
}

#[test]
fn a_database_without_a_version_is_the_first_and_a_later_one_is_refused() {
    let keyed = |value: &str| format!("CREATE TABLE schema_info (key TEXT, value); {value}");
    for (value, version) in [
        ("", 1),
        ("INSERT INTO schema_info VALUES ('version', '2')", 2),
        ("INSERT INTO schema_info VALUES ('version', 3)", 3),
    ] {
        let (_folder, home) = temp_home();
        write_database(&home, &keyed(value));
        assert_eq!(inspect(&home).unwrap(), DatabaseKind::Older { version }, "{value}");
    }
    for (value, said) in [("'4'", "version 4 of the older tool"), ("'new'", "its version cannot be read")] {
        let (_folder, home) = temp_home();
        let before =
            write_database(&home, &keyed(&format!("INSERT INTO schema_info VALUES ('version', {value})")));
        let error = StateReader::open(&home).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::StateUnusable);
        assert!(error.to_string().contains(said), "{error}");
        assert!(
            matches!(inspect(&home).unwrap(), DatabaseKind::Unusable { reason } if reason.contains(said))
        );
        assert!(fs::read(home.database()).unwrap() == before);
    }
}
