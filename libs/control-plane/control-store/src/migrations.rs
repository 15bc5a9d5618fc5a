//! The tables, and how a file of an earlier version gets those it lacks.

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::{keys, nodes, requests};

/// Marks the file as ours among all SQLite files: "lloc".
const APPLICATION_ID: i64 = 0x6c6c_6f63;

/// Each version with what it added to the one before, counted from 1. Entries are only ever appended: an entry that
/// has been released is in somebody's file.
const MIGRATIONS: &[(i64, &str)] =
    &[(keys::SINCE, keys::TABLES), (requests::SINCE, requests::TABLES), (nodes::SINCE, nodes::TABLES)];

/// The version that this program writes: SQLite's `user_version`.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// No table yet: nobody has written the schema, or its creation was interrupted.
    Empty,
    /// Ours, of this version or an earlier one.
    Ours(i64),
    Newer(i64),
    Foreign,
}

/// Looks without changing anything.
pub(crate) fn inspect(connection: &Connection) -> rusqlite::Result<Shape> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let tables: Option<i64> =
        connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |row| row.get(0)).optional()?;
    if tables.is_none() {
        return Ok(Shape::Empty);
    }
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Ok(Shape::Foreign);
    }
    Ok(match number("PRAGMA user_version")? {
        version if version > SCHEMA_VERSION => Shape::Newer(version),
        version if version > 0 => Shape::Ours(version),
        _ => Shape::Foreign,
    })
}

/// Adds what versions after `from` added; from 0 on that is everything.
pub(crate) fn migrate(transaction: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    for (_, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > from) {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}
