//! Columns to values and back.

use std::error::Error;

use orch_core::UnixMillis;
use rusqlite::types::{FromSql, Type};
use rusqlite::{Result, Row};

/// A column that holds one word of a closed list.
pub(crate) fn label<T>(row: &Row<'_>, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let word: String = row.get(column)?;
    parse(&word).ok_or_else(|| unreadable(row, column, format!("{column} holds the unknown word {word:?}")))
}

/// A column that holds a value with a textual form of its own.
pub(crate) fn parsed<T: std::str::FromStr<Err: Error>>(row: &Row<'_>, column: &str) -> Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| unreadable(row, column, format!("{column} {text:?}: {error}")))
}

pub(crate) fn moment(row: &Row<'_>, column: &str) -> Result<UnixMillis> {
    row.get(column).map(UnixMillis)
}

pub(crate) fn optional_moment(row: &Row<'_>, column: &str) -> Result<Option<UnixMillis>> {
    Ok(optional::<i64>(row, column)?.map(UnixMillis))
}

pub(crate) fn optional<T: FromSql>(row: &Row<'_>, column: &str) -> Result<Option<T>> {
    row.get(column)
}

fn unreadable(row: &Row<'_>, column: &str, what: String) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, what.into())
}

/// A row limit as SQLite takes it.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
