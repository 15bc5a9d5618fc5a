//! What people have decided about nodes: which of them get nothing new.

use orch_core::UnixMillis;

use crate::access::{ControlReader, ControlStore};
use crate::error::ControlError;

/// The version of the database that brought these tables.
pub(crate) const SINCE: i64 = 3;

pub(crate) const TABLES: &str = "
CREATE TABLE cordoned_nodes (
    node_id TEXT PRIMARY KEY NOT NULL,
    since   INTEGER NOT NULL
);
";

impl ControlReader {
    /// Whether a node is cordoned.
    pub fn is_cordoned(&self, node_id: &str) -> Result<bool, ControlError> {
        let read = self.read(SINCE, |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM cordoned_nodes WHERE node_id = ?1)";
            Ok(connection.query_row(sql, [node_id], |row| row.get(0))?)
        })?;
        Ok(read.unwrap_or_default())
    }
}

impl ControlStore {
    /// Cordons a node. One that is cordoned already stays so since then.
    pub fn cordon(&self, node_id: &str, now: UnixMillis) -> Result<(), ControlError> {
        self.write(|transaction| {
            let sql = "INSERT INTO cordoned_nodes (node_id, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            transaction.execute(sql, (node_id, now.0))?;
            Ok(())
        })
    }

    /// The end of it, or nothing where it was not cordoned.
    pub fn uncordon(&self, node_id: &str) -> Result<(), ControlError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM cordoned_nodes WHERE node_id = ?1", [node_id])?;
            Ok(())
        })
    }
}
