//! Results of several steps looked up at once: reading files is most of what a cached step costs, and other
//! processors can do it while the driver does.

use std::num::NonZero;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::driver::Driver;
use super::nodes::{NodeRef, NodeResult, Source, State, Work};
use crate::key::Key;
use crate::store::{Found, Store};

/// So many are looked up together.
const BATCH: usize = 64;
/// Fewer are not worth waking a thread for.
const WORTH_HELP: usize = 16;
/// More threads than this get in each other's way in one folder.
const MOST_HELPERS: usize = 3;

/// Steps that are ready but for the question whether their results are there. Empty whenever the driver listens.
#[derive(Default)]
pub(super) struct Lookups {
    steps: Vec<(NodeRef, Box<Work>)>,
}

impl Lookups {
    pub(super) fn add(&mut self, at: NodeRef, work: Box<Work>) {
        self.steps.push((at, work));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.steps.len() >= BATCH
    }
}

/// One key, looked up by whoever comes to it first.
struct Lookup {
    key: Key,
    state: Mutex<LookupState>,
}

enum LookupState {
    Open,
    Found(Found),
    Taken,
}

impl Lookup {
    const fn new(key: Key) -> Self {
        Self { key, state: Mutex::new(LookupState::Open) }
    }

    /// Looks it up, unless somebody has.
    fn help(&self, store: &Store) {
        // Whoever panicked here has found nothing.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, LookupState::Open) {
            *state = LookupState::Found(store.find(&self.key));
        }
    }

    fn take(&self, store: &Store) -> Found {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, LookupState::Taken) {
            LookupState::Found(found) => found,
            LookupState::Open | LookupState::Taken => store.find(&self.key),
        }
    }
}

/// What lies under the keys, in their order. Other threads begin further down; whatever they have not come to is
/// looked up here, so that nobody waits for a thread that does not start.
fn look_up(store: Arc<Store>, keys: &[Key]) -> impl Iterator<Item = Found> + use<> {
    let lookups: Arc<[Lookup]> = keys.iter().copied().map(Lookup::new).collect();
    let helpers = if lookups.len() < WORTH_HELP { 0 } else { helpers() };
    for helper in 1..=helpers {
        let (store, lookups) = (store.clone(), lookups.clone());
        tokio::task::spawn_blocking(move || {
            let part = lookups.len() * helper / (helpers + 1)..lookups.len() * (helper + 1) / (helpers + 1);
            lookups[part].iter().for_each(|lookup| lookup.help(&store));
        });
    }
    (0..lookups.len()).map(move |at| lookups[at].take(&store))
}

/// Asked once: the system's answer costs as much as a few lookups.
fn helpers() -> usize {
    static HELPERS: LazyLock<usize> = LazyLock::new(|| {
        std::thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).min(MOST_HELPERS)
    });
    *HELPERS
}

impl Driver {
    /// Goes on with the steps whose results were to be looked up.
    pub(super) fn look_up(&mut self) {
        let steps = std::mem::take(&mut self.lookups.steps);
        let keys: Vec<Key> = steps.iter().map(|(_, work)| work.document.key()).collect();
        let found = look_up(self.results.home().clone(), &keys);
        for ((at, work), found) in steps.into_iter().zip(found) {
            self.looked_up(at, work, found);
        }
    }

    fn looked_up(&mut self, at: NodeRef, work: Box<Work>, found: Found) {
        // Its scope may have ended since it was opened.
        let Some(scope) = self.scopes.get(at.scope) else { return };
        let node = &scope.nodes[at.index as usize];
        if scope.stop.is_some() || !matches!(node.state, State::Pending) {
            return;
        }
        let key = work.document.key();
        let past = self.past.succeeded.get(key.as_str());
        match found {
            Found::Hit(entry) if past.is_some_and(|past| past.out == entry.out().as_str()) => {
                self.results.uses(key);
                self.settle(at, NodeResult::of_entry(*entry, &work, Source::Resume));
            }
            Found::Hit(entry) if past.is_none() => self.take_stored(at, work, *entry),
            // What was not there may be there by now, from a step that asked the very same.
            Found::Hit(_) | Found::Miss | Found::Refused(_) => self.take_or_do(at, work),
        }
    }
}
