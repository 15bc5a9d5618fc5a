//! The queue of one route: bounded, interactive requests before batch ones, the keys of a class taking turns, and
//! those that were at an engine before in front of everybody. Pure: time is passed in, and where a request could go
//! is asked of the caller.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use orch_runtime::FullPolicy;
use tokio::time::Instant;

use super::line::Line;
use crate::facts::Class;

/// A batch request that has waited so long is treated like an interactive one.
pub(crate) const PROMOTED_AFTER: Duration = Duration::from_mins(5);

/// The most turns that one request can cost its key.
pub(crate) const MOST_COST: u32 = 16;

/// Names a waiter. Whoever comes later has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Somebody who wants to wait.
pub(crate) struct Newcomer<T> {
    /// Greater than all before.
    pub(crate) ticket: Ticket,
    pub(crate) class: Class,
    pub(crate) key: Arc<str>,
    /// How many turns of its key it takes: 1 to [`MOST_COST`].
    pub(crate) cost: u32,
    pub(crate) value: T,
}

pub(super) struct Entry<T> {
    pub(super) cost: u32,
    pub(super) since: Instant,
    pub(super) value: T,
}

/// How an attempt to wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    Waits,
    /// It waits, and this one had to go for it.
    Instead(T),
    Full(T),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Front,
    Class(Class),
}

pub(crate) struct Queue<T> {
    capacity: usize,
    policy: FullPolicy,
    interactive: Line<T>,
    batch: Line<T>,
    /// Were at an engine that gave no answer. Never more than the engines had slots, hence not in the bound.
    front: BTreeMap<Ticket, Entry<T>>,
    lanes: HashMap<Ticket, (Lane, Arc<str>)>,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize, policy: FullPolicy) -> Self {
        Self {
            capacity,
            policy,
            interactive: Line::default(),
            batch: Line::default(),
            front: BTreeMap::new(),
            lanes: HashMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// How many wait in a class; those in front count as interactive.
    pub(crate) fn waiting(&self, class: Class) -> usize {
        match class {
            Class::Interactive => self.interactive.len() + self.front.len(),
            Class::Batch => self.batch.len(),
        }
    }

    /// Since when the one waits who came first.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let lines =
            [&self.interactive, &self.batch].map(|line| line.oldest().map(|(_, _, entry)| entry.since));
        let front = self.front.first_key_value().map(|(_, entry)| entry.since);
        lines.into_iter().chain([front]).flatten().min()
    }

    /// Lets somebody wait, if there is room. A full queue may drop the oldest batch request for it, and for an
    /// interactive one, where no batch request waits, the oldest of all.
    pub(crate) fn push(&mut self, newcomer: Newcomer<T>, now: Instant) -> Pushed<T> {
        if self.has_room() {
            self.admit(newcomer, now);
            return Pushed::Waits;
        }
        match self.make_room(newcomer.class) {
            Some(dropped) => {
                self.admit(newcomer, now);
                Pushed::Instead(dropped)
            }
            None => Pushed::Full(newcomer.value),
        }
    }

    /// Lets somebody wait in front of all others.
    pub(crate) fn push_front(&mut self, newcomer: Newcomer<T>, now: Instant) {
        self.lanes.insert(newcomer.ticket, (Lane::Front, newcomer.key));
        self.front.insert(newcomer.ticket, Entry { cost: 0, since: now, value: newcomer.value });
    }

    /// Takes somebody out who goes without being served. Nothing, if it is not here any more.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let (lane, key) = self.lanes.remove(&ticket)?;
        let entry = match lane {
            Lane::Front => self.front.remove(&ticket),
            Lane::Class(class) => self.line_mut(class).remove(ticket, &key),
        };
        entry.map(|entry| entry.value)
    }

    /// Takes out the one of this class whose turn it is among those that `fits`, once `reserve` got it a place. Nothing,
    /// if nobody fits or the place was gone already. Those in front go with the interactive.
    pub(crate) fn serve<R>(
        &mut self,
        class: Class,
        now: Instant,
        mut fits: impl FnMut(&T) -> bool,
        reserve: impl FnOnce(&T) -> Option<R>,
    ) -> Option<(T, R)> {
        self.promote(now);
        if class == Class::Interactive
            && let Some((&ticket, entry)) = self.front.iter().find(|(_, entry)| fits(&entry.value))
        {
            let reserved = reserve(&entry.value)?;
            return self.remove(ticket).map(|value| (value, reserved));
        }
        let (ticket, key) = self.line_mut(class).pick(&mut fits)?;
        let reserved = reserve(self.line(class).get(ticket, &key)?)?;
        self.lanes.remove(&ticket);
        self.line_mut(class).serve(ticket, &key).map(|entry| (entry.value, reserved))
    }

    /// How many are served before this one, as far as it can be told now.
    pub(crate) fn position(&self, ticket: Ticket) -> Option<usize> {
        let (lane, key) = self.lanes.get(&ticket)?;
        Some(match lane {
            Lane::Front => self.front.range(..ticket).count(),
            Lane::Class(class) => self.ahead_of(*class) + self.line(*class).position(ticket, key),
        })
    }

    /// How many would be served before one that came now.
    pub(crate) fn position_of_next(&self, class: Class, key: &str) -> usize {
        self.ahead_of(class) + self.line(class).position_of_next(key)
    }

    fn ahead_of(&self, class: Class) -> usize {
        let interactive = if class == Class::Batch { self.interactive.len() } else { 0 };
        self.front.len() + interactive
    }

    /// Everybody who waits, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        let lines = self.interactive.iter().chain(self.batch.iter());
        let front = self.front.iter().map(|(&ticket, entry)| (ticket, entry));
        lines.chain(front).map(|(ticket, entry)| (ticket, &entry.value))
    }

    fn has_room(&self) -> bool {
        self.interactive.len() + self.batch.len() < self.capacity
    }

    fn admit(&mut self, newcomer: Newcomer<T>, now: Instant) {
        let Newcomer { ticket, class, key, cost, value } = newcomer;
        let entry = Entry { cost: cost.clamp(1, MOST_COST), since: now, value };
        self.line_mut(class).insert(ticket, &key, entry);
        self.lanes.insert(ticket, (Lane::Class(class), key));
    }

    /// Drops the one that has to give way to a newcomer of this class.
    fn make_room(&mut self, class: Class) -> Option<T> {
        if self.policy == FullPolicy::Reject {
            return None;
        }
        let batch = self.batch.oldest();
        let interactive = || self.interactive.oldest().filter(|_| class == Class::Interactive);
        let (victim, _, _) = batch.or_else(interactive)?;
        self.remove(victim)
    }

    /// Moves batch requests that have waited long enough to the interactive ones, behind nobody of their key who
    /// came later.
    fn promote(&mut self, now: Instant) {
        while let Some((ticket, key, _)) =
            self.batch.oldest().filter(|(_, _, entry)| now.duration_since(entry.since) >= PROMOTED_AFTER)
        {
            let key = Arc::clone(key);
            let Some(entry) = self.batch.remove(ticket, &key) else { return };
            self.interactive.insert(ticket, &key, entry);
            self.lanes.insert(ticket, (Lane::Class(Class::Interactive), key));
        }
    }

    fn line(&self, class: Class) -> &Line<T> {
        match class {
            Class::Interactive => &self.interactive,
            Class::Batch => &self.batch,
        }
    }

    fn line_mut(&mut self, class: Class) -> &mut Line<T> {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Batch => &mut self.batch,
        }
    }
}

#[cfg(test)]
mod tests;
