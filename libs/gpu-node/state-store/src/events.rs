//! What happened, for people and scripts.

use orch_core::{EventLevel, EventType, InstanceName, UnixMillis};
use rusqlite::{Row, Transaction, named_params, params};
use serde::Serialize;
use serde_json::Value;

use crate::error::Fault;
use crate::row;
use crate::{StateReader, StateStore, StoreError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent<'a> {
    pub instance: Option<&'a InstanceName>,
    pub level: EventLevel,
    pub event_type: EventType,
    pub message: String,
    pub meta: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Grows with every event and is never used again: the place to follow on from.
    pub id: i64,
    pub ts: UnixMillis,
    /// `None` for events of the home itself and of instances that were removed.
    pub instance: Option<String>,
    pub level: EventLevel,
    /// A label of [`EventType`], or a word that the older tool left behind.
    pub event_type: String,
    pub message: String,
    pub meta: Option<Value>,
}

/// Which events to read; every condition is optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    pub instance: Option<InstanceName>,
    pub minimum_level: Option<EventLevel>,
    pub event_type: Option<EventType>,
    /// Not older than this.
    pub since: Option<UnixMillis>,
    /// Only those that came after the event with this id.
    pub after_id: Option<i64>,
    pub limit: usize,
    pub newest_first: bool,
}

impl Default for EventQuery {
    fn default() -> Self {
        Self {
            instance: None,
            minimum_level: None,
            event_type: None,
            since: None,
            after_id: None,
            limit: 50,
            newest_first: true,
        }
    }
}

impl StateReader {
    pub fn events(&self, query: &EventQuery) -> Result<Vec<EventRow>, StoreError> {
        let order = if query.newest_first { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT * FROM events
             WHERE (:instance IS NULL OR instance_name = :instance)
               AND (:type IS NULL OR event_type = :type)
               AND (:since IS NULL OR ts >= :since)
               AND id > :after
               AND CASE level WHEN 'error' THEN 2 WHEN 'warning' THEN 1 ELSE 0 END >= :severity
             ORDER BY id {order} LIMIT :limit"
        );
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let values = named_params! {
                ":instance": query.instance.as_ref().map(InstanceName::as_str),
                ":type": query.event_type.map(EventType::label),
                ":since": query.since.map(|moment| moment.0),
                ":after": query.after_id.unwrap_or(0),
                ":severity": query.minimum_level.map_or(0, severity),
                ":limit": row::limit(query.limit),
            };
            let rows = statement.query_map(values, event_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl StateStore {
    /// Writes an event down and returns its id. An instance that is not known (any more) loses its name, not
    /// the event.
    pub fn append_event(&self, event: &NewEvent<'_>, now: UnixMillis) -> Result<i64, StoreError> {
        self.write(|transaction| insert_event(transaction, event, now))
    }
}

/// Writes an event as a part of a larger step.
pub(crate) fn insert_event(
    transaction: &Transaction<'_>,
    event: &NewEvent<'_>,
    now: UnixMillis,
) -> Result<i64, Fault> {
    transaction.execute(
        "INSERT INTO events (ts, instance_name, level, event_type, message, meta_json)
         VALUES (?1, (SELECT name FROM instances WHERE name = ?2), ?3, ?4, ?5, ?6)",
        params![
            now.0,
            event.instance.map(InstanceName::as_str),
            event.level.label(),
            event.event_type.label(),
            event.message,
            event.meta.as_ref().map(Value::to_string),
        ],
    )?;
    Ok(transaction.last_insert_rowid())
}

const fn severity(level: EventLevel) -> i64 {
    match level {
        EventLevel::Info => 0,
        EventLevel::Warning => 1,
        EventLevel::Error => 2,
    }
}

fn event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: row.get("id")?,
        ts: row::moment(row, "ts")?,
        instance: row::optional(row, "instance_name")?,
        level: row::label(row, "level", EventLevel::from_label)?,
        event_type: row.get("event_type")?,
        message: row.get("message")?,
        meta: row::optional::<String>(row, "meta_json")?.and_then(|text| serde_json::from_str(&text).ok()),
    })
}
