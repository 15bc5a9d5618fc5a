//! API keys: what each may do and how much, and what it has spent. The secret itself is nowhere: only its digest.

use orch_core::{Priority, Scope, UnixMillis};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::access::{ControlReader, ControlStore};
use crate::error::{ControlError, Fault};

/// The version of the database that brought these tables.
pub(crate) const SINCE: i64 = 1;

pub(crate) const TABLES: &str = "
CREATE TABLE keys (
    id           TEXT PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL UNIQUE,
    digest       BLOB NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,
    models       TEXT,
    rpm          INTEGER,
    tpm          INTEGER,
    concurrency  INTEGER,
    budget       INTEGER,
    priority     TEXT,
    created_at   INTEGER NOT NULL,
    spent        INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER
);
";

const COLUMNS: &str = "id, name, digest, scopes, models, rpm, tpm, concurrency, budget, priority, created_at, \
                       spent, last_used_at";

/// A key to be made. Its id and its digest are made by whoever makes the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub id: String,
    /// Unique among keys.
    pub name: String,
    /// SHA-256 of the secret.
    pub digest: [u8; 32],
    pub scopes: Vec<Scope>,
    /// The models it may ask for; all of them where absent.
    pub models: Option<Vec<String>>,
    /// Requests a minute.
    pub rpm: Option<u32>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests at a time.
    pub concurrency: Option<u32>,
    /// Tokens in its life.
    pub budget: Option<u64>,
    pub priority: Option<Priority>,
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub key: NewKey,
    pub created_at: UnixMillis,
    /// Tokens used so far.
    pub spent: u64,
    pub last_used_at: Option<UnixMillis>,
}

impl ControlReader {
    /// Every key, oldest first.
    pub fn keys(&self) -> Result<Vec<KeyRow>, ControlError> {
        let read = self.read(SINCE, |connection| {
            let sql = format!("SELECT {COLUMNS} FROM keys ORDER BY created_at, id");
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([], key_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        Ok(read.unwrap_or_default())
    }
}

impl ControlStore {
    /// Keeps a new key; its name must be free.
    pub fn add_key(&self, key: &NewKey, now: UnixMillis) -> Result<(), ControlError> {
        self.write(|transaction| {
            if find(transaction, &key.name)?.is_some() {
                return Err(Fault::KeyExists(key.name.clone()));
            }
            transaction.execute(
                "INSERT INTO keys (id, name, digest, scopes, models, rpm, tpm, concurrency, budget, priority, \
                 created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                (
                    &key.id,
                    &key.name,
                    &key.digest,
                    list(key.scopes.iter().map(|scope| scope.label())),
                    key.models.as_ref().map(|models| list(models.iter().map(String::as_str))),
                    key.rpm,
                    key.tpm.map(stored),
                    key.concurrency,
                    key.budget.map(stored),
                    key.priority.map(Priority::label),
                    now.0,
                ),
            )?;
            Ok(())
        })
    }

    /// Removes a key, named by its id or its name, and gives it back.
    pub fn remove_key(&self, selector: &str) -> Result<KeyRow, ControlError> {
        self.write(|transaction| {
            let Some(row) = find(transaction, selector)? else {
                return Err(Fault::UnknownKey(selector.to_owned()));
            };
            transaction.execute("DELETE FROM keys WHERE id = ?1", [&row.key.id])?;
            Ok(row)
        })
    }

    /// Adds what keys have used since the last time: id, tokens, and when. A key that is gone is passed over.
    pub fn add_spent(&self, used: &[(String, u64, UnixMillis)]) -> Result<(), ControlError> {
        self.write(|transaction| {
            let mut statement =
                transaction.prepare("UPDATE keys SET spent = spent + ?2, last_used_at = ?3 WHERE id = ?1")?;
            for (id, tokens, at) in used {
                statement.execute((id, stored(*tokens), at.0))?;
            }
            Ok(())
        })
    }
}

/// Ids are looked at first: no name can hide another key's id.
fn find(connection: &Connection, selector: &str) -> Result<Option<KeyRow>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1");
    Ok(connection.query_row(&sql, [selector], key_row).optional()?)
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let scopes: String = row.get(3)?;
    let models: Option<String> = row.get(4)?;
    let priority: Option<String> = row.get(9)?;
    let key = NewKey {
        id: row.get(0)?,
        name: row.get(1)?,
        digest: row.get(2)?,
        scopes: words(&scopes).map(|scope| word(scope, Scope::from_label)).collect::<Result<_, _>>()?,
        models: models.map(|models| words(&models).map(str::to_owned).collect()),
        rpm: row.get(5)?,
        tpm: row.get::<_, Option<i64>>(6)?.map(counted),
        concurrency: row.get(7)?,
        budget: row.get::<_, Option<i64>>(8)?.map(counted),
        priority: priority.map(|priority| word(&priority, Priority::from_label)).transpose()?,
    };
    Ok(KeyRow {
        key,
        created_at: UnixMillis(row.get(10)?),
        spent: counted(row.get(11)?),
        last_used_at: row.get::<_, Option<i64>>(12)?.map(UnixMillis),
    })
}

/// A list as it is kept: one entry a line. Names of models hold commas, but no line ends.
fn list<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    entries.collect::<Vec<_>>().join("\n")
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty())
}

/// SQLite's integers are signed; no count of tokens comes near their end.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) fn counted(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// A word that no version of ours writes: damage, and not a right that is missing.
fn word<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    read(text).ok_or_else(|| {
        let unknown = format!("{text:?} is no word for what a key may do");
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, unknown.into())
    })
}
