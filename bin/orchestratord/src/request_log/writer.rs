//! The thread that writes records down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
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
/// Old entries are thrown away so often, and whenever so many entries or bodies have come.
const PRUNE_PACE: Duration = Duration::from_hours(1);
const PRUNE_AFTER: usize = 10_000;
const PRUNE_AFTER_BODIES: usize = 500;

pub(super) struct Writer<F> {
    store: Arc<ControlStore>,
    inbox: Receiver<Note>,
    shared: Arc<Shared>,
    secrets: Vec<String>,
    told: watch::Sender<u64>,
    on_trouble: F,
    troubled: bool,
    /// What the bodies of the batch take.
    held: usize,
    pruned: Option<Instant>,
    entries_since: usize,
    bodies_since: usize,
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
        Self {
            store,
            inbox,
            shared,
            secrets,
            told,
            on_trouble,
            troubled: false,
            held: 0,
            pruned: None,
            entries_since: 0,
            bodies_since: 0,
        }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        self.prune();
        loop {
            let closing = self.gather(&mut batch);
            self.write(&mut batch);
            self.prune();
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
        // Not woken by each one that comes meanwhile: the channel holds them.
        std::thread::park_timeout(PACE);
        while batch.len() < MOST {
            match self.inbox.try_recv() {
                Ok(Note::Over(record)) => self.take(batch, *record),
                Err(TryRecvError::Empty) => return false,
                Ok(Note::Close) | Err(TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    pub(super) fn take(&mut self, batch: &mut Vec<RequestEntry>, record: gateway::RequestRecord) {
        // Their memory is free when they are written: the database may not take them for long.
        self.held += captured_bytes(&record);
        batch.push(entry_of(record, &self.secrets));
    }

    fn let_go(&mut self, batch: &mut Vec<RequestEntry>) {
        self.shared.body_bytes.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
        batch.clear();
    }

    /// What the database does not take now is offered again, until it is too much.
    pub(super) fn write(&mut self, batch: &mut Vec<RequestEntry>) {
        if batch.is_empty() {
            return;
        }
        match self.store.add_requests(batch) {
            Ok(()) => {
                self.entries_since += batch.len();
                self.bodies_since += batch.iter().filter(|entry| entry.body.is_some()).count();
                self.let_go(batch);
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

    fn lose(&mut self, batch: &mut Vec<RequestEntry>) {
        self.shared.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.let_go(batch);
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
        let grown = self.entries_since >= PRUNE_AFTER || self.bodies_since >= PRUNE_AFTER_BODIES;
        if !grown && self.pruned.is_some_and(|at| at.elapsed() < PRUNE_PACE) {
            return;
        }
        self.pruned = Some(Instant::now());
        (self.entries_since, self.bodies_since) = (0, 0);
        match self.store.prune_requests(UnixMillis::now()) {
            Ok(pruned) => tracing::debug!(?pruned, "the request log was pruned"),
            Err(error) => tracing::warn!(%error, "old requests could not be pruned"),
        }
    }
}
