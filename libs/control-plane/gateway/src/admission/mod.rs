//! Who may use a replica now. Today every request is let in at once and the engine lets surplus ones wait;
//! what is counted here is released exactly once, when the guard goes.

mod line;
mod queue;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::live::LiveReplica;

/// A request's place on a replica. It travels inside the response's body; dropping it is the only release.
pub(crate) struct SlotGuard {
    live: Arc<LiveReplica>,
    takes_slot: bool,
}

impl SlotGuard {
    /// Takes a place, unless the replica is being drained. `takes_slot` is false for requests that the engine
    /// answers without one of its slots; they only hold up a drain.
    pub(crate) fn enter(live: &Arc<LiveReplica>, takes_slot: bool) -> Option<Self> {
        live.in_flight.fetch_add(1, Ordering::SeqCst);
        if takes_slot {
            live.busy_slots.fetch_add(1, Ordering::SeqCst);
        }
        let guard = Self { live: Arc::clone(live), takes_slot };
        // Looked at after counting: a drain looks at the count after its mark, so one of the two sees the other.
        (!live.is_draining()).then_some(guard)
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if self.takes_slot {
            self.live.busy_slots.fetch_sub(1, Ordering::SeqCst);
        }
        if self.live.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.live.emptied.notify_waiters();
        }
    }
}
