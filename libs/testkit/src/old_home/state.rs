//! `state/state.sqlite` as the last version of the tool left it: nothing runs any more, and it does not know.

use std::path::Path;

use rusqlite::{Connection, params};

use super::OldInstance;
use super::configs::{number, uid};

const TABLES: &str = "
CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT);
INSERT INTO schema_info VALUES ('version', '3');
CREATE TABLE instances (
    name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER,
    status TEXT DEFAULT 'stopped', health TEXT DEFAULT 'unknown', start_time REAL, last_health_check REAL,
    restart_count INTEGER, config_hash TEXT, error_message TEXT, updated_at REAL
);
CREATE TABLE runtime (
    name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER, port INTEGER,
    cmdline TEXT, binary_version TEXT, status TEXT, health TEXT, started_at REAL, last_seen_at REAL,
    last_health_ok_at REAL, restart_attempts INTEGER, last_exit_code INTEGER, last_error TEXT
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL, instance_name TEXT, instance_uid TEXT, level TEXT,
    event_type TEXT, message TEXT, meta_json TEXT
);
CREATE TABLE health_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, instance_name TEXT, instance_uid TEXT, health TEXT,
    response_time_ms REAL, error_message TEXT, checked_at REAL
);
";

/// 22 October 2025.
const THEN: f64 = 1_761_127_872.5;

/// Above every pid that a system gives: no process of the tests' machine is mistaken for one of these.
const FIRST_PID: i64 = 1 << 30;

pub(super) fn write(root: &Path, instances: &[OldInstance]) {
    fill(&root.join("state/state.sqlite"), instances).expect("a new database takes its rows");
}

fn fill(path: &Path, instances: &[OldInstance]) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    for (index, instance) in instances.iter().enumerate() {
        let uid = uid(index, instance.shape);
        let number = number(index);
        let pid = FIRST_PID + i64::from(instance.port);
        // Rows of `runtime` alone are normal there.
        if index % 2 == 0 {
            transaction.execute(
                "INSERT INTO instances (name, instance_uid, instance_no, updated_at) VALUES (?1, ?2, ?3, ?4)",
                params![instance.name, uid, number, THEN],
            )?;
        }
        transaction.execute(
            "INSERT INTO runtime (name, instance_uid, instance_no, pid, port, status, health, started_at, last_seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'running', 'healthy', ?6, ?6)",
            params![instance.name, uid, number, pid, instance.port, THEN],
        )?;
        transaction.execute(
            "INSERT INTO events (ts, instance_name, instance_uid, level, event_type, message)
             VALUES (?1, ?2, ?3, 'INFO', 'started', ?4)",
            params![THEN, instance.name, uid, format!("started on port {}", instance.port)],
        )?;
    }
    transaction.commit()
}
