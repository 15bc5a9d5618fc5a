//! A request's place on a replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Need;
use crate::live::{TableHandle, Target};

/// A request's place on a replica. It travels inside the response's body; dropping it is the only release, and
/// whoever waits for a place may have it then.
pub(crate) struct SlotGuard {
    target: Arc<Target>,
    table: TableHandle,
    takes_slot: bool,
}

impl SlotGuard {
    /// Takes a place, unless the replica is being drained or, for a request that takes a slot, has none left. Requests
    /// that take no slot only hold up a drain.
    pub(crate) fn reserve(table: &TableHandle, target: &Arc<Target>, need: Need) -> Option<Self> {
        let live = &target.live;
        let takes_slot = need == Need::Slot;
        if takes_slot {
            let most = target.replica.slots_total.max(1) as usize;
            let one_more = |busy: usize| (busy < most).then_some(busy + 1);
            live.busy_slots.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        }
        live.in_flight.fetch_add(1, Ordering::SeqCst);
        // Looked at after counting: a drain looks at the count after its mark, so one of the two sees the other.
        if live.is_draining() {
            live.leave(takes_slot);
            return None;
        }
        Some(Self { target: Arc::clone(target), table: table.clone(), takes_slot })
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// An answer kept the slot busy for so long.
    pub(crate) fn served_for(&self, time: Duration) {
        if self.takes_slot {
            self.target.live.service_time.observe(time);
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let is_idle = self.target.live.leave(self.takes_slot);
        let admission = self.table.admission();
        admission.serve_waiters(&self.table);
        if is_idle {
            admission.is_idle();
        }
    }
}
