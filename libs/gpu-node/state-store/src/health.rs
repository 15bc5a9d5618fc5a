//! The history of health checks.

use orch_core::{Health, InstanceName, ReplicaId, UnixMillis};
use rusqlite::{Row, named_params, params};
use serde::Serialize;

use crate::row;
use crate::runtime::update_runtime;
use crate::{StateReader, StateStore, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthRow {
    pub replica: ReplicaId,
    pub health: Health,
    pub response_time_ms: Option<u32>,
    pub error_message: Option<String>,
    pub checked_at: UnixMillis,
}

impl StateReader {
    /// The last checks of all replicas of an instance, newest first.
    pub fn health_history(&self, name: &InstanceName, limit: usize) -> Result<Vec<HealthRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM health_history WHERE instance_name = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![name.as_str(), row::limit(limit)], health_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl StateStore {
    /// Adds a check to the history and makes its finding the replica's health. The status stays as it is.
    pub fn record_health_check(
        &self,
        name: &InstanceName,
        replica: ReplicaId,
        health: Health,
        response_time_ms: Option<u32>,
        error: Option<&str>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            update_runtime(
                transaction,
                name,
                replica,
                "health = :health, last_seen_at = :now,
                 last_health_ok_at = iif(:health = 'healthy', :now, last_health_ok_at)",
                named_params! { ":health": health.label(), ":now": now.0 },
            )?;
            transaction.execute(
                "INSERT INTO health_history
                 (instance_name, replica, health, response_time_ms, error_message, checked_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![name.as_str(), replica.to_string(), health.label(), response_time_ms, error, now.0],
            )?;
            Ok(())
        })
    }
}

fn health_row(row: &Row<'_>) -> rusqlite::Result<HealthRow> {
    Ok(HealthRow {
        replica: row::parsed(row, "replica")?,
        health: row::label(row, "health", Health::from_label)?,
        response_time_ms: row::optional(row, "response_time_ms")?,
        error_message: row::optional(row, "error_message")?,
        checked_at: row::moment(row, "checked_at")?,
    })
}
