//! The state that all threads of a fake engine share.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;

use crate::connection::Connection;
use crate::faults::Faults;
use crate::options::Options;

/// How many requests are remembered for `/fake/requests`.
const REMEMBERED: usize = 100;

/// What was done so far; read through `/fake/stats` and `/metrics`.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Requests whose client left before the end.
    pub(crate) cancelled: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) tokens: AtomicU64,
}

/// One engine.
pub(crate) struct Engine {
    pub(crate) options: Options,
    pub(crate) counters: Counters,
    pub(crate) children: Vec<u32>,
    /// Whether the knobs that end the process do so at this start.
    pub(crate) may_crash: bool,
    ready: AtomicBool,
    faults: RwLock<Faults>,
    work: Mutex<Work>,
    work_changed: Condvar,
    seen: Mutex<VecDeque<Value>>,
}

struct Work {
    /// Requests between their first byte and their last, queued ones included.
    in_flight: usize,
    /// Which slots are busy.
    slots: Vec<bool>,
}

impl Engine {
    pub(crate) fn new(options: Options, faults: Faults, children: Vec<u32>, may_crash: bool) -> Self {
        let work = Work { in_flight: 0, slots: vec![false; options.slots] };
        Self {
            options,
            counters: Counters::default(),
            children,
            may_crash,
            ready: AtomicBool::new(false),
            faults: RwLock::new(faults),
            work: Mutex::new(work),
            work_changed: Condvar::new(),
            seen: Mutex::new(VecDeque::new()),
        }
    }

    /// The knobs as they are now.
    pub(crate) fn faults(&self) -> Faults {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    pub(crate) fn become_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    /// Counts the request as in flight for as long as the guard lives.
    pub(crate) fn begin_request(&self) -> InFlight<'_> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.work().in_flight += 1;
        InFlight(self)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.work().in_flight
    }

    pub(crate) fn wait_until_idle(&self) {
        let mut work = self.work();
        while work.in_flight > 0 {
            work = self.work_changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Which slots are busy.
    pub(crate) fn slots(&self) -> Vec<bool> {
        self.work().slots.clone()
    }

    /// Waits for a slot, as the real one does: without a limit, but not for a client that has left.
    pub(crate) fn take_slot(&self, connection: &Connection) -> io::Result<Slot<'_>> {
        const LOOK_AT_CLIENT: Duration = Duration::from_millis(20);
        let mut work = self.work();
        loop {
            if let Some(index) = work.slots.iter().position(|busy| !busy) {
                work.slots[index] = true;
                return Ok(Slot { engine: self, index });
            }
            let waited = self.work_changed.wait_timeout(work, LOOK_AT_CLIENT);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
            connection.check_peer()?;
        }
    }

    /// Remembers what a client sent, the latest requests only.
    pub(crate) fn remember(&self, request: Value) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    pub(crate) fn remembered(&self) -> Vec<Value> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight.
pub(crate) struct InFlight<'a>(&'a Engine);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.work().in_flight -= 1;
        self.0.work_changed.notify_all();
    }
}

/// A slot that is busy with a request.
pub(crate) struct Slot<'a> {
    engine: &'a Engine,
    index: usize,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.engine.work().slots[self.index] = false;
        self.engine.work_changed.notify_all();
    }
}
