//! What is forgotten, so that a home does not grow for ever.

use std::time::Duration;

use orch_core::UnixMillis;

use crate::{StateStore, StoreError};

/// Events older than this are pruned.
pub const EVENT_RETENTION: Duration = Duration::from_hours(7 * 24);
/// So many health checks of each instance survive pruning.
pub const HEALTH_ROWS_KEPT: usize = 1000;

/// How much a pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub events: usize,
    pub health_checks: usize,
}

impl StateStore {
    /// Removes what is over the retention. The daemon calls this; reads never do.
    pub fn prune(&self, now: UnixMillis) -> Result<Pruned, StoreError> {
        let retention = i64::try_from(EVENT_RETENTION.as_millis()).unwrap_or(i64::MAX);
        self.write(|transaction| {
            let events =
                transaction.execute("DELETE FROM events WHERE ts < ?1", [now.0.saturating_sub(retention)])?;
            let health_checks = transaction.execute(
                "DELETE FROM health_history WHERE id IN (
                     SELECT id FROM (
                         SELECT id, row_number() OVER (PARTITION BY instance_name ORDER BY id DESC) AS place
                         FROM health_history
                     ) WHERE place > ?1
                 )",
                [crate::row::limit(HEALTH_ROWS_KEPT)],
            )?;
            Ok(Pruned { events, health_checks })
        })
    }
}
