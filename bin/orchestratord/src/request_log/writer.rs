//! The thread that writes records down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use control_store::{ControlStore, RequestEntry};
use orch_core::UnixMillis;
use tokio::sync::watch;

use super::entry::entry_of;
use super::{Note, Shared, captured_bytes};

/// Records are gathered so long before they are written together.
const PACE: Duration = Duration::from_millis(100);
/// So many are written together; when the database takes none, so many are kept for it.
const MOST: usize = 4096;
/// How often old entries are thrown away.
const PRUNE_PACE: Duration = Duration::from_hours(1);

pub(super) struct Writer<F> {
    store: Arc<ControlStore>,
    inbox: Receiver<Note>,
    shared: Arc<Shared>,
    secrets: Vec<String>,
    told: watch::Sender<u64>,
    on_trouble: F,
    troubled: bool,
    pruned: Option<Instant>,
}

impl<F: Fn(bool)> Writer<F> {
    pub(super) fn new(
        store: Arc<ControlStore>,
        inbox: Receiver<Note>,
        shared: Arc<Shared>,
        secrets: Vec<String>,
        told: watch::Sender<u64>,
        on_trouble: F,
    ) -> Self {
        Self { store, inbox, shared, secrets, told, on_trouble, troubled: false, pruned: None }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            self.prune();
            let closing = self.gather(&mut batch);
            self.write(&mut batch);
            if closing {
                self.lose(&mut batch);
                return;
            }
        }
    }

    /// Waits for a record, and a little longer for more. True when it was the last time.
    fn gather(&mut self, batch: &mut Vec<RequestEntry>) -> bool {
        if batch.is_empty() {
            match self.inbox.recv() {
                Ok(Note::Over(record)) => self.take(batch, *record),
                Ok(Note::Close) | Err(_) => return true,
            }
        }
        let until = Instant::now() + PACE;
        while batch.len() < MOST {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Note::Over(record)) => self.take(batch, *record),
                Err(RecvTimeoutError::Timeout) => return false,
                Ok(Note::Close) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        false
    }

    fn take(&self, batch: &mut Vec<RequestEntry>, record: gateway::RequestRecord) {
        self.shared.body_bytes.fetch_sub(captured_bytes(&record), Ordering::Relaxed);
        batch.push(entry_of(record, &self.secrets));
    }

    /// What the database does not take now is offered again, until it is too much.
    fn write(&mut self, batch: &mut Vec<RequestEntry>) {
        if batch.is_empty() {
            return;
        }
        match self.store.add_requests(batch) {
            Ok(()) => {
                batch.clear();
                self.told.send_modify(|count| *count += 1);
                self.say(None);
            }
            Err(error) => {
                self.say(Some(&error.to_string()));
                if batch.len() >= MOST {
                    self.lose(batch);
                }
            }
        }
    }

    fn lose(&self, batch: &mut Vec<RequestEntry>) {
        self.shared.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch.clear();
    }

    /// Tells changes, not states.
    fn say(&mut self, trouble: Option<&str>) {
        if trouble.is_some() == self.troubled {
            return;
        }
        self.troubled = trouble.is_some();
        if let Some(error) = trouble {
            tracing::error!(error, "the request log cannot be written; serving goes on");
        } else {
            tracing::info!("the request log can be written again");
        }
        (self.on_trouble)(self.troubled);
    }

    fn prune(&mut self) {
        if self.pruned.is_some_and(|at| at.elapsed() < PRUNE_PACE) {
            return;
        }
        self.pruned = Some(Instant::now());
        match self.store.prune_requests(UnixMillis::now()) {
            Ok(pruned) => tracing::debug!(?pruned, "the request log was pruned"),
            Err(error) => tracing::warn!(%error, "old requests could not be pruned"),
        }
    }
}
