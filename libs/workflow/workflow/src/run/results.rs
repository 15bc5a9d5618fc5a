//! Results of earlier lives, earlier jobs and other steps: where they are looked for, and where new ones go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orch_core::UnixMillis;
use serde_json::Value;

use super::links::Links;
use super::nodes::Kept;
use super::tasks::Made;
use crate::key::{Key, KeyDocument};
use crate::past::Past;
use crate::steps::{Collected, Performed};
use crate::store::{Durability, Entry, Found, Put, Store, StoreError};

pub(super) struct Results {
    /// Shared by all jobs of the home.
    home: Arc<Store>,
    /// This run's alone.
    own: Arc<Store>,
    durability: Durability,
    /// Whether there may be results of an earlier life.
    resumed: bool,
    /// Entries of the home's store that this run has used.
    used: Links,
    /// How often steps that share nothing have asked the same in this life.
    asked: HashMap<Key, u32>,
}

impl Results {
    pub(super) fn new(home: Arc<Store>, own: Store, durability: Durability, resumed: bool) -> Self {
        let own = Arc::new(own);
        let used = Links::new(home.clone(), own.clone());
        Self { home, own, durability, resumed, used, asked: HashMap::new() }
    }

    /// The document under which a step's result is kept. Steps that share nothing are told from others that ask
    /// the same by counting them: none takes another's result, and a step that was renamed finds its own.
    pub(super) fn document(&mut self, mut document: Value, kept: Kept) -> KeyDocument {
        let plain = KeyDocument::new(&document);
        if kept == Kept::Shared {
            return plain;
        }
        let asked = self.asked.entry(plain.key()).or_default();
        *asked += 1;
        if *asked == 1 {
            return plain;
        }
        document["occurrence"] = Value::from(*asked);
        KeyDocument::new(&document)
    }

    /// The result of a step that an earlier life of the job has journalled.
    pub(super) fn of_earlier_life(&mut self, past: &Past, key: &Key) -> Option<Box<Entry>> {
        let out = &past.succeeded.get(key.as_str())?.out;
        let is_it = |found: Found| match found {
            Found::Hit(entry) if entry.out().as_str() == out => Some(entry),
            _ => None,
        };
        if let Some(entry) = is_it(self.home.find(key)) {
            self.used.add(*key);
            return Some(entry);
        }
        is_it(self.own.find(key))
    }

    /// A result that may be used instead of doing a step.
    pub(super) fn find(&mut self, key: &Key, kept: Kept) -> Found {
        let shared = if kept == Kept::Shared { self.home.find(key) } else { Found::Miss };
        match shared {
            Found::Hit(entry) => {
                self.used.add(*key);
                Found::Hit(entry)
            }
            // What was stored just before a crash, and not journalled any more.
            Found::Miss if self.resumed => self.own.find(key),
            other => other,
        }
    }

    pub(super) fn uses(&mut self, key: Key) {
        self.used.add(key);
    }

    pub(super) fn home(&self) -> &Arc<Store> {
        &self.home
    }

    /// Where the files of results may lie.
    pub(super) fn stores(&self) -> [Arc<Store>; 2] {
        [self.own.clone(), self.home.clone()]
    }

    /// How the result of one attempt will be kept.
    pub(super) fn keeper(&self, document: KeyDocument, kept: Kept) -> Keeper {
        Keeper {
            home: (kept == Kept::Shared).then(|| self.home.clone()),
            own: self.own.clone(),
            durability: self.durability,
            document,
        }
    }

    /// Keeps a request that led to no result, so that somebody can be told what became different.
    pub(super) fn keep_request(&self, document: KeyDocument) {
        let own = self.own.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = own.keep_document(&document) {
                tracing::warn!(%error, "a request cannot be kept");
            }
        });
    }

    /// Lets the entries that this run used appear in its own folder while it goes on.
    pub(super) fn link_on(&mut self) {
        self.used.link_on();
    }

    /// Returns when all of them are there.
    pub(super) async fn link_rest(self) {
        self.used.finish().await;
    }
}

/// Keeps one result, on a thread that may wait.
pub(super) struct Keeper {
    home: Option<Arc<Store>>,
    own: Arc<Store>,
    durability: Durability,
    document: KeyDocument,
}

impl Keeper {
    /// A home that cannot keep it does not undo what was done: the run's own folder is enough to go on.
    pub(super) fn keep(self, performed: Performed, duration: Duration) -> Result<Made, StoreError> {
        let mut entry = Entry::new(self.document, performed.output, UnixMillis::now().to_rfc3339());
        entry.usage = performed.usage;
        entry.provider = Some(performed.provider).filter(|name| !name.is_empty());
        entry.model = Some(performed.model).filter(|name| !name.is_empty());
        entry.finish_reason = performed.finish;
        entry.duration_s = duration.as_secs_f64();
        let mut put = |store: &Store| {
            let blob = |file: &Collected| store.put_blob(&file.path, &file.content, self.durability);
            entry.blobs = performed.collected.iter().map(blob).collect::<Result<_, _>>()?;
            store.put(&entry, self.durability)
        };
        let is_shared = match self.home.filter(|_| !performed.only_for_this_job).map(|home| put(&home)) {
            // Of two processes the faster one's answer stays; ours is what this job goes on with.
            None | Some(Ok(Put::Other)) => false,
            Some(Ok(Put::Stored | Put::Same)) => true,
            Some(Err(error)) => {
                tracing::warn!(%error, "no other job will find a result");
                false
            }
        };
        if !is_shared {
            put(&self.own)?;
        }
        Ok(Made { entry: Arc::new(entry), is_shared })
    }
}
