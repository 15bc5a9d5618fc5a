//! The tables, and how a database file is recognised before anything touches it.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use crate::older::{self, OlderTables};

/// Ours starts at 100, so that no number means two things: the older tool counted from 1.
pub const SCHEMA_VERSION: i64 = 100;

const TABLES: &str = "
CREATE TABLE schema_info (version INTEGER NOT NULL);

CREATE TABLE instances (
    name          TEXT PRIMARY KEY NOT NULL,
    uid           TEXT NOT NULL,
    config_path   TEXT NOT NULL,
    desired_state TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
);

CREATE TABLE runtime (
    name               TEXT NOT NULL REFERENCES instances(name) ON DELETE CASCADE,
    replica            TEXT NOT NULL DEFAULT 'r0',
    pid                INTEGER,
    process_started_at TEXT,
    exe                TEXT,
    port               INTEGER,
    cmdline            TEXT,
    engine_version     TEXT,
    status             TEXT NOT NULL DEFAULT 'stopped',
    health             TEXT NOT NULL DEFAULT 'unknown',
    started_at         INTEGER,
    last_seen_at       INTEGER,
    last_health_ok_at  INTEGER,
    restarts           INTEGER NOT NULL DEFAULT 0,
    restart_attempts   INTEGER NOT NULL DEFAULT 0,
    last_restart_at    INTEGER,
    next_restart_at    INTEGER,
    last_exit_code     INTEGER,
    last_error         TEXT,
    config_hash        TEXT,
    PRIMARY KEY (name, replica)
);

CREATE TABLE health_history (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_name    TEXT NOT NULL REFERENCES instances(name) ON DELETE CASCADE,
    replica          TEXT NOT NULL DEFAULT 'r0',
    health           TEXT NOT NULL,
    response_time_ms INTEGER,
    error_message    TEXT,
    checked_at       INTEGER NOT NULL
);
CREATE INDEX health_history_by_instance ON health_history (instance_name, id);

CREATE TABLE events (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    ts            INTEGER NOT NULL,
    instance_name TEXT REFERENCES instances(name) ON DELETE SET NULL,
    level         TEXT NOT NULL,
    event_type    TEXT NOT NULL,
    message       TEXT NOT NULL,
    meta_json     TEXT
);
CREATE INDEX events_by_instance ON events (instance_name, id);
CREATE INDEX events_by_time ON events (ts);
";

/// What a database file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// No table yet: nobody has written the schema, or its creation was interrupted.
    Empty,
    Ours,
    Newer(i64),
    /// Of the older tool, in a version that is understood.
    Older(OlderTables),
    /// Of the older tool, from later than is understood here.
    NewerOlder(i64),
    Foreign,
    /// Ours by its version, but something is missing.
    Incomplete(String),
}

/// Looks without changing anything.
pub(crate) fn inspect(connection: &Connection) -> rusqlite::Result<Shape> {
    let columns = columns(connection)?;
    if columns.is_empty() {
        return Ok(Shape::Empty);
    }
    let has = |table: &str, column: &str| columns.contains(&(table.to_owned(), column.to_owned()));
    let keyed = has("schema_info", "key");
    if keyed || (has("instances", "restart_count") && !has("schema_info", "version")) {
        return older::recognise(connection, keyed, columns);
    }
    if !has("schema_info", "version") {
        return Ok(Shape::Foreign);
    }
    match stored_version(connection)? {
        Some(version) if version > SCHEMA_VERSION => Ok(Shape::Newer(version)),
        Some(SCHEMA_VERSION) => completeness(&columns),
        Some(_) => Ok(Shape::Foreign),
        None => Ok(Shape::Incomplete("it does not say its version".to_owned())),
    }
}

/// Writes the tables of an empty database. The caller holds the transaction.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.execute("INSERT INTO schema_info (version) VALUES (?1)", [SCHEMA_VERSION])?;
    Ok(())
}

fn stored_version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT max(version) FROM schema_info", [], |row| row.get(0))
        .optional()
        .map(Option::flatten)
}

fn completeness(found: &BTreeSet<(String, String)>) -> rusqlite::Result<Shape> {
    let reference = Connection::open_in_memory()?;
    create(&reference)?;
    let expected = columns(&reference)?;
    Ok(match expected.difference(found).next() {
        Some((table, column)) => Shape::Incomplete(format!("table {table} has no column {column}")),
        None => Shape::Ours,
    })
}

/// Every (table, column) of the database, SQLite's own tables left out.
fn columns(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = connection.prepare(
        "SELECT tables.name, columns.name
         FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
         WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    #[test]
    fn what_create_writes_is_recognised_as_ours() {
        let connection = database("");
        assert_eq!(inspect(&connection).unwrap(), Shape::Empty);
        create(&connection).unwrap();
        assert_eq!(inspect(&connection).unwrap(), Shape::Ours);
    }

    #[test]
    fn a_later_version_is_newer() {
        let connection =
            database("CREATE TABLE schema_info (version INTEGER); INSERT INTO schema_info VALUES (101)");
        assert_eq!(inspect(&connection).unwrap(), Shape::Newer(101));
    }

    #[test]
    fn both_forms_of_the_older_tools_database_are_recognised() {
        let keyed = database(
            "CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT); INSERT INTO schema_info VALUES ('version', '3')",
        );
        assert!(matches!(inspect(&keyed).unwrap(), Shape::Older(tables) if tables.version == 3));
        let first = database(
            "CREATE TABLE instances (name TEXT, pid INTEGER, start_time REAL, status TEXT, health TEXT,
             last_health_check REAL, restart_count INTEGER, config_hash TEXT)",
        );
        assert!(matches!(inspect(&first).unwrap(), Shape::Older(tables) if tables.version == 1));
    }

    #[test]
    fn somebody_elses_database_is_foreign() {
        assert_eq!(inspect(&database("CREATE TABLE songs (title TEXT)")).unwrap(), Shape::Foreign);
        let low = database("CREATE TABLE schema_info (version INTEGER); INSERT INTO schema_info VALUES (7)");
        assert_eq!(inspect(&low).unwrap(), Shape::Foreign);
    }

    #[test]
    fn a_database_of_ours_without_a_column_is_incomplete() {
        let connection = database("");
        create(&connection).unwrap();
        connection.execute_batch("ALTER TABLE runtime DROP COLUMN config_hash").unwrap();
        let Shape::Incomplete(detail) = inspect(&connection).unwrap() else { panic!("taken for complete") };
        assert_eq!(detail, "table runtime has no column config_hash");
    }
}
