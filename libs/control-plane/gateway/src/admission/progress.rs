//! What whoever drives a request can see of its waiting.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not in a queue: on its way there, or with an engine.
    Working,
    /// Waiting until anything serves it.
    Loading,
    /// Waiting behind so many others.
    Queued(usize),
}

const WORKING: usize = 0;
const LOADING: usize = 1;
const QUEUED: usize = 2;

/// Written where the request waits, read by who drives it.
#[derive(Default)]
pub(crate) struct Progress {
    stage: AtomicUsize,
    /// Its client may be answered before its engine does.
    may_defer: AtomicBool,
    /// It has waited so long that its client should see a sign of life.
    due: AtomicBool,
}

impl Progress {
    pub(crate) fn allow_deferring(&self) {
        self.may_defer.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_defer(&self) -> bool {
        self.may_defer.load(Ordering::Relaxed)
    }

    pub(super) fn is_overdue(&self) {
        self.due.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed)
    }

    pub(super) fn is_at(&self, stage: Stage) {
        let number = match stage {
            Stage::Working => WORKING,
            Stage::Loading => LOADING,
            Stage::Queued(ahead) => ahead.saturating_add(QUEUED),
        };
        self.stage.store(number, Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            WORKING => Stage::Working,
            LOADING => Stage::Loading,
            number => Stage::Queued(number - QUEUED),
        }
    }
}
