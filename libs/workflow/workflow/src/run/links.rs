//! The entries that a run has used appear in its own folder: many at once while the run goes on, on a thread that
//! may wait, so that the end of a large run does not wait for thousands of them; the rest when it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use crate::key::Key;
use crate::store::Store;

/// So many come together before a thread is woken for them.
const BATCH: usize = 256;

pub(super) struct Links {
    home: Arc<Store>,
    own: Arc<Store>,
    used: HashSet<Key>,
    /// Those of them that no batch has taken.
    waiting: Vec<Key>,
    under_way: Option<JoinHandle<()>>,
    /// How many could not be made.
    failed: Arc<AtomicUsize>,
}

impl Links {
    pub(super) fn new(home: Arc<Store>, own: Arc<Store>) -> Self {
        let (used, waiting) = (HashSet::new(), Vec::new());
        Self { home, own, used, waiting, under_way: None, failed: Arc::default() }
    }

    pub(super) fn add(&mut self, key: Key) {
        if self.used.insert(key) {
            self.waiting.push(key);
        }
    }

    /// Begins a batch, if there is one and none is under way.
    pub(super) fn link_on(&mut self) {
        let is_busy = self.under_way.as_ref().is_some_and(|batch| !batch.is_finished());
        if self.waiting.len() >= BATCH && !is_busy {
            self.under_way = Some(self.begin_batch());
        }
    }

    fn begin_batch(&mut self) -> JoinHandle<()> {
        let (home, own, failed) = (self.home.clone(), self.own.clone(), self.failed.clone());
        let keys = std::mem::take(&mut self.waiting);
        tokio::task::spawn_blocking(move || {
            failed.fetch_add(own.link_used(&home, &keys), Ordering::Relaxed);
        })
    }

    /// Returns when all are there, and tells of those that are not.
    pub(super) async fn finish(mut self) {
        let last = self.begin_batch();
        for batch in self.under_way.take().into_iter().chain([last]) {
            if batch.await.is_err() {
                tracing::warn!("linking the entries that the run used was broken off");
            }
        }
        let failed = self.failed.load(Ordering::Relaxed);
        if failed > 0 {
            tracing::warn!(failed, "entries that the run used cannot be linked into its folder");
        }
    }
}
