//! Equal requests in flight are made once: the first who asks leads, the others wait for what it brings.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Entry;
use crate::key::Key;

type ByKey = HashMap<Key, watch::Receiver<Option<Arc<Entry>>>>;

/// The requests that are being made in this process.
#[derive(Clone, Default)]
pub(crate) struct Flights {
    by_key: Arc<Mutex<ByKey>>,
}

/// What to do about a request.
pub enum Seat {
    /// Make it.
    Leader(Leader),
    /// Somebody is making it.
    Follower(Follower),
}

/// Makes the request. Dropped without a result, it lets one of those who wait lead.
pub struct Leader {
    key: Key,
    flights: Flights,
    result: watch::Sender<Option<Arc<Entry>>>,
}

/// Waits for the leader's result.
pub struct Follower {
    result: watch::Receiver<Option<Arc<Entry>>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, ByKey> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn join(&self, key: &Key) -> Seat {
        match self.lock().entry(*key) {
            Place::Occupied(flight) => Seat::Follower(Follower { result: flight.get().clone() }),
            Place::Vacant(place) => {
                let (result, receiver) = watch::channel(None);
                place.insert(receiver);
                Seat::Leader(Leader { key: *key, flights: self.clone(), result })
            }
        }
    }
}

impl Leader {
    /// Gives the result to all who wait. It must be in the store by now: whoever asks from here on looks there.
    pub fn bring(self, entry: Arc<Entry>) {
        self.result.send_replace(Some(entry));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Before the sender goes: a follower that hears of the end must find the place free.
        self.flights.lock().remove(&self.key);
    }
}

impl Follower {
    /// The leader's result; `None` where it ended without one. Then ask for a seat again: the first to do so leads.
    pub async fn result(mut self) -> Option<Arc<Entry>> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyDocument;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::task::JoinSet;
    use workflow_spec::StepOutput;

    fn entry() -> Arc<Entry> {
        let document = KeyDocument::new(&json!("question"));
        Arc::new(Entry::new(document, StepOutput::of_text("answer"), String::new()))
    }

    /// Asks until there is an answer; the first `failing` leaders give up.
    async fn ask(flights: Flights, made: Arc<AtomicU32>, failing: u32) -> Arc<Entry> {
        loop {
            match flights.join(&entry().key()) {
                Seat::Leader(leader) => {
                    tokio::task::yield_now().await;
                    if made.fetch_add(1, Ordering::SeqCst) >= failing {
                        leader.bring(entry());
                        return entry();
                    }
                }
                Seat::Follower(follower) => {
                    if let Some(entry) = follower.result().await {
                        return entry;
                    }
                }
            }
        }
    }

    async fn requests_of_many(failing: u32) -> u32 {
        let (flights, made) = (Flights::default(), Arc::new(AtomicU32::new(0)));
        let mut asking = JoinSet::new();
        for _ in 0..50 {
            asking.spawn(ask(flights.clone(), Arc::clone(&made), failing));
        }
        assert_eq!(asking.join_all().await, vec![entry(); 50]);
        assert!(flights.lock().is_empty(), "nothing is left behind");
        made.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn equal_requests_are_made_once() {
        assert_eq!(requests_of_many(0).await, 1);
    }

    #[tokio::test]
    async fn a_leader_that_brings_nothing_lets_one_follower_lead() {
        assert_eq!(requests_of_many(3).await, 4);
    }

    #[tokio::test]
    async fn a_result_that_came_before_anybody_waited_is_not_missed() {
        let flights = Flights::default();
        let (Seat::Leader(leader), Seat::Follower(follower)) =
            (flights.join(&entry().key()), flights.join(&entry().key()))
        else {
            panic!("the first leads, the second follows");
        };
        leader.bring(entry());
        assert_eq!(follower.result().await, Some(entry()));
    }

    #[tokio::test]
    async fn other_requests_are_not_held_up() {
        let flights = Flights::default();
        let _leader = flights.join(&entry().key());
        let other = KeyDocument::new(&json!("another question"));
        assert!(matches!(flights.join(&other.key()), Seat::Leader(_)));
    }
}
