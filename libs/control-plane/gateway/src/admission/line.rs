//! One class of a queue: each key's waiters in the order of their arrival, and the keys taking turns by deficit
//! round robin. Pure: it knows neither clock nor replica.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::queue::{Entry, Ticket};

/// What a key may spend in one turn. An ordinary request costs as much, so that keys alternate.
const QUANTUM: u32 = 1;

/// How far behind the first of a key it is looked for one that fits what is free.
const LOOK_AHEAD: usize = 64;

pub(super) struct Line<T> {
    keys: HashMap<Arc<str>, Waiters<T>>,
    /// Every key that waits, the one whose turn it is in front.
    turns: VecDeque<Arc<str>>,
    count: usize,
}

struct Waiters<T> {
    entries: BTreeMap<Ticket, Entry<T>>,
    /// What is left to spend. Gone with the last waiter: nobody saves up by staying away.
    deficit: u32,
}

/// Somebody who fits, and what it costs.
type Candidate = (Ticket, u32);

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { keys: HashMap::new(), turns: VecDeque::new(), count: 0 }
    }
}

impl<T> Line<T> {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, ticket: Ticket, key: &Arc<str>, entry: Entry<T>) {
        let waiters = self.keys.entry(Arc::clone(key)).or_insert_with(|| {
            self.turns.push_back(Arc::clone(key));
            Waiters { entries: BTreeMap::new(), deficit: QUANTUM }
        });
        waiters.entries.insert(ticket, entry);
        self.count += 1;
    }

    /// Takes somebody out.
    pub(super) fn remove(&mut self, ticket: Ticket, key: &Arc<str>) -> Option<Entry<T>> {
        let waiters = self.keys.get_mut(key)?;
        let entry = waiters.entries.remove(&ticket)?;
        if waiters.entries.is_empty() {
            self.keys.remove(key);
            self.turns.retain(|turn| turn != key);
        }
        self.count -= 1;
        Some(entry)
    }

    /// Takes somebody out whose turn it was, and lets its key pay.
    pub(super) fn serve(&mut self, ticket: Ticket, key: &Arc<str>) -> Option<Entry<T>> {
        let entry = self.remove(ticket, key)?;
        if let Some(waiters) = self.keys.get_mut(key) {
            waiters.deficit = waiters.deficit.saturating_sub(entry.cost);
            if waiters.deficit == 0 {
                waiters.deficit = QUANTUM;
                self.turns.retain(|turn| turn != key);
                self.turns.push_back(Arc::clone(key));
            }
        }
        Some(entry)
    }

    /// Whose turn it is among those that `fits`. Keys without such a waiter are passed over and spend nothing.
    pub(super) fn pick(&mut self, mut fits: impl FnMut(&T) -> bool) -> Option<(Ticket, Arc<str>)> {
        let keys = self.turns.len();
        let mut found: VecDeque<Option<Candidate>> = VecDeque::new();
        let mut round = 0;
        loop {
            let key = Arc::clone(self.turns.front()?);
            let waiters = self.keys.get_mut(&key)?;
            // `fits` is asked once for each key; from the second round on its answers lie in the order of the turns.
            let candidate = if round < keys { waiters.first(&mut fits) } else { found.pop_front().flatten() };
            match candidate {
                Some((ticket, cost)) if cost <= waiters.deficit => return Some((ticket, key)),
                Some(_) => waiters.deficit += QUANTUM,
                None => {}
            }
            found.push_back(candidate);
            self.turns.rotate_left(1);
            round += 1;
            if round == keys && found.iter().all(Option::is_none) {
                return None;
            }
        }
    }

    pub(super) fn get(&self, ticket: Ticket, key: &Arc<str>) -> Option<&T> {
        self.keys.get(key)?.entries.get(&ticket).map(|entry| &entry.value)
    }

    /// How many of this line are served before this one, if every request costs one turn.
    pub(super) fn position(&self, ticket: Ticket, key: &Arc<str>) -> usize {
        let own = self.keys.get(key).map_or(0, |waiters| waiters.entries.range(..ticket).count());
        self.with_turns_of_others(own, key)
    }

    /// The same for a newcomer of this key.
    pub(super) fn position_of_next(&self, key: &str) -> usize {
        let own = self.keys.get(key).map_or(0, |waiters| waiters.entries.len());
        self.with_turns_of_others(own, key)
    }

    /// Before the waiter that `own` of its key go before, every other key has as many turns, and those whose turn
    /// is earlier one more.
    fn with_turns_of_others(&self, own: usize, key: &str) -> usize {
        let mut behind = false;
        let others = self.turns.iter().map(|turn| {
            if **turn == *key {
                behind = true;
                return 0;
            }
            let theirs = self.keys.get(turn).map_or(0, |waiters| waiters.entries.len());
            theirs.min(if behind { own } else { own + 1 })
        });
        own + others.sum::<usize>()
    }

    /// Who came first of all.
    pub(super) fn oldest(&self) -> Option<(Ticket, &Arc<str>, &Entry<T>)> {
        let firsts = self.keys.iter().filter_map(|(key, waiters)| {
            waiters.entries.first_key_value().map(|(&ticket, entry)| (ticket, key, entry))
        });
        firsts.min_by_key(|(ticket, _, _)| *ticket)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &Entry<T>)> {
        self.keys.values().flat_map(|waiters| waiters.entries.iter().map(|(&ticket, entry)| (ticket, entry)))
    }
}

impl<T> Waiters<T> {
    fn first(&self, fits: &mut impl FnMut(&T) -> bool) -> Option<Candidate> {
        let mut entries = self.entries.iter().take(LOOK_AHEAD);
        entries.find(|(_, entry)| fits(&entry.value)).map(|(&ticket, entry)| (ticket, entry.cost))
    }
}
