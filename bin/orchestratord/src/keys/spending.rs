//! What keys use, written down soon after: a budget outlives the daemon.
//!
//! Requests never wait for the disk. What ends within one pause is written in one transaction; a daemon that is killed
//! loses what was in flight and what ended in its last moments, never more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_store::ControlStore;
use gateway::Ledger;
use orch_core::UnixMillis;
use orch_runtime::Tasks;
use tokio::sync::Notify;

/// From the end of a request to its writing, at most, and so at most so often.
const PAUSE: Duration = Duration::from_millis(50);
/// After a failure of the disk.
const REST: Duration = Duration::from_secs(1);

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Spending {
    pending: Mutex<HashMap<String, u64>>,
    more: Notify,
}

impl Ledger for Spending {
    fn used(&self, key: &str, tokens: u64) {
        let mut pending = self.lock();
        match pending.get_mut(key) {
            Some(sum) => *sum = sum.saturating_add(tokens),
            None => drop(pending.insert(key.to_owned(), tokens)),
        }
        drop(pending);
        self.more.notify_one();
    }
}

impl Spending {
    /// Writes down all that is pending now. What cannot be written stays pending.
    pub(super) fn write(&self, store: &ControlStore) -> Result<(), control_store::ControlError> {
        let taken = std::mem::take(&mut *self.lock());
        if taken.is_empty() {
            return Ok(());
        }
        let now = UnixMillis::now();
        let rows: Vec<_> = taken.into_iter().map(|(key, tokens)| (key, tokens, now)).collect();
        store.add_spent(&rows).inspect_err(|_| {
            for (key, tokens, _) in &rows {
                self.used(key, *tokens);
            }
        })
    }

    /// Additions are whole, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes whenever there is something, until the daemon ends; its last writing is for whoever ends it.
pub(super) async fn write_forever(spending: Arc<Spending>, store: Arc<ControlStore>, owner: Tasks) {
    let ends = owner.token();
    let mut in_trouble = false;
    loop {
        tokio::select! {
            () = ends.cancelled() => return,
            () = spending.more.notified() => {}
        }
        let (book, place) = (Arc::clone(&spending), Arc::clone(&store));
        let Ok(written) = owner.spawn_blocking("spending", move || book.write(&place)).await else { return };
        if let (Err(error), false) = (&written, in_trouble) {
            tracing::warn!(%error, "what keys use cannot be written down now; it is tried again");
        }
        in_trouble = written.is_err();
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(if in_trouble { REST } else { PAUSE }) => {}
        }
    }
}
