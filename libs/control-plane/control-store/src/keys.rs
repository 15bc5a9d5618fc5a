//! API keys: what each may do and how much, and what it has spent. The secret itself is nowhere: only its digest.

use std::fmt;
use std::str::FromStr;

use orch_core::UnixMillis;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

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

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Requests that models answer.
    Infer,
    /// Looking at instances, events and figures.
    Read,
    /// Changes, and the way around the gateway.
    Admin,
    /// Nodes that join.
    Node,
}

impl Scope {
    pub const ALL: [Scope; 4] = [Scope::Infer, Scope::Read, Scope::Admin, Scope::Node];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }
}

/// The most urgent class that a key's requests may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Interactive,
    Batch,
}

impl Priority {
    pub const ALL: [Priority; 2] = [Priority::Interactive, Priority::Batch];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

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
                    key.priority,
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
    let known = |word: &str| {
        let unknown = |error: UnknownWord| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error))
        };
        word.parse::<Scope>().map_err(unknown)
    };
    let key = NewKey {
        id: row.get(0)?,
        name: row.get(1)?,
        digest: row.get(2)?,
        scopes: words(&scopes).map(known).collect::<Result<_, _>>()?,
        models: models.map(|models| words(&models).map(str::to_owned).collect()),
        rpm: row.get(5)?,
        tpm: row.get::<_, Option<i64>>(6)?.map(counted),
        concurrency: row.get(7)?,
        budget: row.get::<_, Option<i64>>(8)?.map(counted),
        priority: row.get(9)?,
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
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn counted(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// A word that is not in its list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word} is none of {known}")]
pub struct UnknownWord {
    word: String,
    known: String,
}

fn word_of<T: Copy>(text: &str, all: &[T], label: impl Fn(T) -> &'static str) -> Result<T, UnknownWord> {
    let labels = || all.iter().map(|one| label(*one)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|one| label(*one) == text);
    found.ok_or_else(|| UnknownWord { word: text.escape_debug().to_string(), known: labels() })
}

impl FromStr for Scope {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        word_of(text, &Self::ALL, Self::label)
    }
}

impl FromStr for Priority {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        word_of(text, &Self::ALL, Self::label)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl ToSql for Priority {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.label()))
    }
}

impl FromSql for Priority {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}
