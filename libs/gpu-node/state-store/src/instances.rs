//! Which instances exist and what is wanted of them.

use std::path::{Path, PathBuf};

use orch_core::{DesiredState, InstanceName, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::error::Fault;
use crate::row;
use crate::{StateReader, StateStore, StoreError};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceRow {
    pub name: InstanceName,
    pub uid: String,
    pub config_path: PathBuf,
    pub desired_state: DesiredState,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

impl StateReader {
    /// Every known instance, by name.
    pub fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        self.read(all)
    }

    pub fn instance(&self, name: &InstanceName) -> Result<Option<InstanceRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM instances WHERE name = ?1")?;
            Ok(statement.query_row([name.as_str()], instance_row).optional()?)
        })
    }

    /// What the user wants of it; `None` for an instance without a row, where its config decides.
    pub fn desired(&self, name: &InstanceName) -> Result<Option<DesiredState>, StoreError> {
        Ok(self.instance(name)?.map(|row| row.desired_state))
    }
}

impl StateStore {
    /// Makes the instance known. One that is known keeps its desired state; its uid and path are brought up to
    /// date.
    pub fn ensure_instance(
        &self,
        name: &InstanceName,
        uid: &str,
        config_path: &Path,
        desired_default: DesiredState,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO instances (name, uid, config_path, desired_state, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)
                 ON CONFLICT (name) DO UPDATE SET uid = ?2, config_path = ?3, updated_at = ?5
                 WHERE uid <> ?2 OR config_path <> ?3",
                params![name.as_str(), uid, config_path.to_string_lossy(), desired_default.label(), now.0],
            )?;
            Ok(())
        })
    }

    pub fn set_desired(
        &self,
        name: &InstanceName,
        desired: DesiredState,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let changed = transaction.execute(
                "UPDATE instances SET desired_state = ?2, updated_at = ?3 WHERE name = ?1",
                params![name.as_str(), desired.label(), now.0],
            )?;
            if changed == 0 { Err(Fault::UnknownInstance(name.clone())) } else { Ok(()) }
        })
    }

    /// Forgets the instance with its runtime rows and health history; its events stay, without its name.
    /// True if it was known.
    pub fn remove_instance(&self, name: &InstanceName) -> Result<bool, StoreError> {
        self.write(|transaction| {
            Ok(transaction.execute("DELETE FROM instances WHERE name = ?1", [name.as_str()])? > 0)
        })
    }
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<InstanceRow>, Fault> {
    let mut statement = connection.prepare_cached("SELECT * FROM instances ORDER BY name")?;
    let rows = statement.query_map([], instance_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn instance_row(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    Ok(InstanceRow {
        name: row::parsed(row, "name")?,
        uid: row.get("uid")?,
        config_path: row.get::<_, String>("config_path")?.into(),
        desired_state: row::label(row, "desired_state", DesiredState::from_label)?,
        created_at: row::moment(row, "created_at")?,
        updated_at: row::moment(row, "updated_at")?,
    })
}
