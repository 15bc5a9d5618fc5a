//! A database of the older tool becomes one of ours, in place: a backup first, then one transaction that is checked
//! before it counts. Whatever goes wrong, and whenever the program is killed, the file holds either all of the old
//! state or all of the new one.

use std::path::{Path, PathBuf};

use orch_core::{EventLevel, EventType, HomeLayout, InstanceName, Status, UnixMillis};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde_json::json;

use crate::access::{check_integrity, look, open_for_reading, open_for_writing, refuse_unless_ours};
use crate::backup::Backup;
use crate::older::{OLDER_TABLES, OlderTables};
use crate::runtime::masked;
use crate::schema::{self, Shape};
use crate::{StateReader, StoreError};

/// Put before the names of the old tables while both kinds exist.
const PREFIX: &str = "older_";

/// What the database of a home is, as far as a look tells that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DatabaseKind {
    /// There is none yet.
    Missing,
    /// Ours, ready for use.
    Current,
    /// Of the older tool: read in place, and migrated by the first command that writes.
    Older { version: u32 },
    /// Written by a later program, ours or theirs, or not a state database at all, or damaged: left as it is.
    Unusable { reason: String },
}

/// A process that the older tool wrote down. It knew no start mark and no executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldProcess {
    pub name: InstanceName,
    pub pid: u32,
    pub port: Option<u16>,
    pub started_at: Option<UnixMillis>,
}

/// The same process, seen alive: what makes it recognisable from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivingProcess {
    pub process_started_at: String,
    pub exe: PathBuf,
    pub port: u16,
}

/// Tells whether a process of the older tool still runs.
pub type StillOurs<'a> = &'a mut dyn FnMut(&OldProcess) -> Option<LivingProcess>;

/// How far a migration is. Each is told when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStep {
    /// The old database is sound, and nobody else writes to it.
    Checked,
    BackedUp,
    /// All rows have been taken over.
    Converted,
    /// The new database is sound.
    Verified,
    /// It counts.
    Committed,
}

/// What a migration did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// The version of the older tool's database.
    pub from: u32,
    /// The old database as it was; `None` while nothing has been done.
    pub backup: Option<PathBuf>,
    pub instances: Vec<InstanceName>,
    /// Those of them whose process still runs: they stay wanted.
    pub running: Vec<InstanceName>,
    /// Rows whose name cannot be an instance of ours; they are left out.
    pub ignored: Vec<String>,
    pub events: u32,
}

/// Looks what the database of a home is. Changes nothing.
pub fn inspect(home: &HomeLayout) -> Result<DatabaseKind, StoreError> {
    let path = home.database();
    let judged = match look(&path) {
        Ok(None) => return Ok(DatabaseKind::Missing),
        Ok(Some((_, Shape::Older(tables)))) => return Ok(DatabaseKind::Older { version: tables.version }),
        Ok(Some((_, shape))) => refuse_unless_ours(&path, shape),
        Err(error) => Err(error),
    };
    match judged {
        Ok(()) => Ok(DatabaseKind::Current),
        Err(error) if error.exit_code() == orch_core::ExitCode::StateUnusable => {
            Ok(DatabaseKind::Unusable { reason: error.to_string() })
        }
        Err(error) => Err(error),
    }
}

/// What [`migrate`] would do now; `None` where there is nothing to migrate. Changes nothing.
pub fn preview(home: &HomeLayout, still_ours: StillOurs<'_>) -> Result<Option<Migration>, StoreError> {
    let path = home.database();
    let (connection, tables) = match look(&path)? {
        Some((connection, Shape::Older(tables))) => (connection, tables),
        Some((_, shape)) => return refuse_unless_ours(&path, shape).map(|()| None),
        None => return Ok(None),
    };
    let sqlite = |error| StoreError::from_sqlite(&path, error);
    check_integrity(&connection, &path)?;
    tables.cover(&connection, "").map_err(sqlite)?;
    let ignored = tables.misnamed(&connection, "").map_err(sqlite)?;
    let events = count(&connection, "temp.events").map_err(sqlite)?;
    let reader = StateReader::over(path.clone(), connection);
    let rows = reader.runtimes()?;
    let running = rows.iter().filter_map(old_process).filter(|process| still_ours(process).is_some());
    Ok(Some(Migration {
        from: tables.version,
        backup: None,
        running: running.map(|process| process.name).collect(),
        instances: rows.into_iter().map(|row| row.name).collect(),
        ignored,
        events,
    }))
}

/// Migrates the database of a home if it is one of the older tool; `None` where there is nothing to migrate.
///
/// `still_ours` is asked once for each process that was written down as running: an instance whose process is proven
/// to live stays wanted, with that process; every other one is stopped. It is asked while the database is locked.
/// `on_step` hears of each step when it is done. An error (34 for a database that cannot be used) leaves the old
/// database as it was, without a backup.
///
/// Programs call `pool_managerd::compose::migrate_state`, which supplies the processes; opening a home for work does so
/// by itself.
pub fn migrate(
    home: &HomeLayout,
    now: UnixMillis,
    still_ours: StillOurs<'_>,
    on_step: &mut dyn FnMut(MigrationStep),
) -> Result<Option<Migration>, StoreError> {
    let path = home.database();
    // Judged before anything is opened for writing: what cannot be migrated keeps every byte.
    match look(&path)? {
        Some((reading, Shape::Older(_))) => check_integrity(&reading, &path)?,
        Some((_, shape)) => return refuse_unless_ours(&path, shape).map(|()| None),
        None => return Ok(None),
    }
    let sqlite = |error| StoreError::from_sqlite(&path, error);
    let mut connection = open_for_writing(&path).map_err(sqlite)?;
    // Tables are renamed and dropped: nothing is to follow them. None of this can be said inside a transaction.
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; PRAGMA temp_store = MEMORY",
        )
        .map_err(sqlite)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    // Somebody else may have been quicker.
    let Shape::Older(tables) = schema::inspect(&transaction).map_err(sqlite)? else { return Ok(None) };
    on_step(MigrationStep::Checked);
    // A connection cannot copy what it is about to write; while the lock is held, another one sees the same.
    let source = open_for_reading(&path).map_err(sqlite)?;
    let backup = Backup::take(&source, &path, tables.version)?;
    drop(source);
    on_step(MigrationStep::BackedUp);
    let migrated = convert(&transaction, &path, &tables, now, still_ours, backup.path())
        .and_then(|migration| verified(&transaction, &path, on_step).map(|()| migration))
        .and_then(|migration| transaction.commit().map(|()| migration).map_err(sqlite));
    match migrated {
        Ok(migration) => {
            on_step(MigrationStep::Committed);
            Ok(Some(migration))
        }
        Err(error) => {
            // The transaction is undone: the old state is what it was, and its copy is of no use.
            backup.discard();
            Err(error)
        }
    }
}

fn convert(
    transaction: &Transaction<'_>,
    path: &Path,
    tables: &OlderTables,
    now: UnixMillis,
    still_ours: StillOurs<'_>,
    backup: &Path,
) -> Result<Migration, StoreError> {
    let sqlite = |error| StoreError::from_sqlite(path, error);
    clear_the_way(transaction, tables).map_err(sqlite)?;
    schema::create(transaction).map_err(sqlite)?;
    tables.cover(transaction, PREFIX).map_err(sqlite)?;
    let ignored = tables.misnamed(transaction, PREFIX).map_err(sqlite)?;
    transaction.execute_batch(TAKE_OVER).map_err(sqlite)?;
    mask_command_lines(transaction).map_err(sqlite)?;
    let running = settle_processes(transaction, still_ours).map_err(sqlite)?;
    let instances = names(transaction).map_err(sqlite)?;
    let events = count(transaction, "main.events").map_err(sqlite)?;
    clear_away(transaction, tables).map_err(sqlite)?;
    let migration = Migration {
        from: tables.version,
        backup: Some(backup.to_owned()),
        instances,
        running,
        ignored,
        events,
    };
    write_event(transaction, &migration, now).map_err(sqlite)?;
    Ok(migration)
}

/// The rows as our tables hold them. An event of an instance that is not known keeps its name in its meta data.
const TAKE_OVER: &str = "
INSERT INTO main.instances (name, uid, config_path, desired_state, created_at, updated_at)
SELECT name, uid, config_path, desired_state, created_at, updated_at FROM temp.instances;

INSERT INTO main.runtime (name, replica, pid, port, cmdline, engine_version, status, health, started_at, last_seen_at,
    last_health_ok_at, restarts, restart_attempts, last_exit_code, last_error)
SELECT name, replica, pid, port, cmdline, engine_version, status, health, started_at, last_seen_at,
    last_health_ok_at, restarts, restart_attempts, last_exit_code, last_error FROM temp.runtime;

INSERT OR IGNORE INTO main.health_history
    (id, instance_name, replica, health, response_time_ms, error_message, checked_at)
SELECT id, instance_name, replica, health, response_time_ms, error_message, checked_at FROM temp.health_history
WHERE instance_name IN (SELECT name FROM main.instances);

INSERT OR IGNORE INTO main.events (id, ts, instance_name, level, event_type, message, meta_json)
SELECT id, ts, (SELECT name FROM main.instances WHERE name = old.instance_name), level, event_type, message,
    CASE WHEN instance_name IS NULL OR instance_name IN (SELECT name FROM main.instances) THEN meta_json
         WHEN json_valid(meta_json) AND json_type(meta_json) = 'object'
             THEN json_set(meta_json, '$.instance', instance_name)
         ELSE json_object('instance', instance_name, 'meta', meta_json) END
FROM temp.events AS old;
";

/// Moves the old tables aside, under names that ours do not have. Their indexes, and views and triggers, which have
/// names of their own, go.
fn clear_the_way(transaction: &Transaction<'_>, tables: &OlderTables) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')
         UNION ALL SELECT type, name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let named: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
    for (kind, name) in named {
        transaction.execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quoted(&name)))?;
    }
    for table in present(tables) {
        let aside = quoted(&format!("{PREFIX}{table}"));
        transaction.execute_batch(&format!("ALTER TABLE main.{table} RENAME TO {aside}"))?;
    }
    Ok(())
}

fn clear_away(transaction: &Transaction<'_>, tables: &OlderTables) -> rusqlite::Result<()> {
    for view in ["events", "health_history", "runtime", "instances", "older_rows"] {
        transaction.execute_batch(&format!("DROP VIEW temp.{view}"))?;
    }
    for table in present(tables) {
        transaction.execute_batch(&format!("DROP TABLE main.{PREFIX}{table}"))?;
    }
    Ok(())
}

fn present(tables: &OlderTables) -> impl Iterator<Item = &'static str> {
    OLDER_TABLES.into_iter().filter(|table| tables.has_table(table))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn mask_command_lines(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select =
        transaction.prepare("SELECT name, cmdline FROM main.runtime WHERE cmdline IS NOT NULL")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let (name, line) = row;
        transaction
            .execute("UPDATE main.runtime SET cmdline = ?2 WHERE name = ?1", [&name, &masked(&line)])?;
    }
    Ok(())
}

/// Every process that was written down is proven to live, or forgotten. Returns the instances that run.
fn settle_processes(
    transaction: &Transaction<'_>,
    still_ours: StillOurs<'_>,
) -> rusqlite::Result<Vec<InstanceName>> {
    let mut select = transaction.prepare("SELECT * FROM main.runtime ORDER BY name")?;
    let rows = select.query_map([], crate::runtime::runtime_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut running = Vec::new();
    for row in rows {
        match old_process(&row).and_then(|process| still_ours(&process)) {
            Some(living) => {
                keep_process(transaction, &row.name, row.status, &living)?;
                running.push(row.name);
            }
            None => forget_process(transaction, &row.name)?,
        }
    }
    Ok(running)
}

fn old_process(row: &crate::RuntimeRow) -> Option<OldProcess> {
    let lives = matches!(row.status, Status::Starting | Status::Running | Status::Stopping);
    let pid = row.pid.filter(|_| lives)?;
    Some(OldProcess { name: row.name.clone(), pid, port: row.port, started_at: row.started_at })
}

fn keep_process(
    transaction: &Transaction<'_>,
    name: &InstanceName,
    status: Status,
    living: &LivingProcess,
) -> rusqlite::Result<()> {
    let wanted = if status == Status::Stopping { "stopped" } else { "running" };
    transaction
        .execute("UPDATE main.instances SET desired_state = ?2 WHERE name = ?1", [name.as_str(), wanted])?;
    transaction.execute(
        "UPDATE main.runtime SET process_started_at = ?2, exe = ?3, port = ?4 WHERE name = ?1",
        params![name.as_str(), living.process_started_at, living.exe.to_string_lossy(), living.port],
    )?;
    Ok(())
}

/// What failed stays visible.
fn forget_process(transaction: &Transaction<'_>, name: &InstanceName) -> rusqlite::Result<()> {
    transaction
        .execute("UPDATE main.instances SET desired_state = 'stopped' WHERE name = ?1", [name.as_str()])?;
    transaction.execute(
        "UPDATE main.runtime SET pid = NULL, status = iif(status = 'error', 'error', 'stopped'), health = 'unknown'
         WHERE name = ?1",
        [name.as_str()],
    )?;
    Ok(())
}

fn names(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<InstanceName>> {
    let mut statement = transaction.prepare("SELECT name FROM main.instances ORDER BY name")?;
    statement.query_map([], |row| crate::row::parsed(row, "name"))?.collect()
}

fn count(connection: &Connection, table: &str) -> rusqlite::Result<u32> {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
}

fn write_event(
    transaction: &Transaction<'_>,
    migration: &Migration,
    now: UnixMillis,
) -> rusqlite::Result<()> {
    let (level, left_out) = match migration.ignored.len() {
        0 => (EventLevel::Info, String::new()),
        count => (EventLevel::Warning, format!("; {count} rows with impossible names were left out")),
    };
    let message = format!(
        "state database migrated from version {} of the older tool: {} instances, {} of them running{left_out}",
        migration.from,
        migration.instances.len(),
        migration.running.len(),
    );
    transaction.execute(
        "INSERT INTO main.events (ts, level, event_type, message, meta_json) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            now.0,
            level.label(),
            EventType::Migrated.label(),
            message,
            json!({"from": migration.from, "backup": migration.backup, "ignored": migration.ignored})
                .to_string(),
        ],
    )?;
    Ok(())
}

/// The new database is what it should be, before it counts.
fn verified(
    transaction: &Transaction<'_>,
    path: &Path,
    on_step: &mut dyn FnMut(MigrationStep),
) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::from_sqlite(path, error);
    on_step(MigrationStep::Converted);
    refuse_unless_ours(path, schema::inspect(transaction).map_err(sqlite)?)?;
    check_integrity(transaction, path)?;
    let mut dangling = transaction.prepare("PRAGMA foreign_key_check").map_err(sqlite)?;
    if dangling.exists([]).map_err(sqlite)? {
        let detail = "its rows do not belong together after the migration".to_owned();
        return Err(StoreError::Corrupt { path: path.to_owned(), detail });
    }
    on_step(MigrationStep::Verified);
    Ok(())
}
