//! How generations on one engine are going, counted as they pass. Whoever supervises the engine reads it: an engine
//! may say that it is well and yet answer nobody.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use http::StatusCode;

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Grows with every piece of a good answer.
    pub progress: u64,
    /// Generations in a row that the engine failed. A whole good answer begins anew; what a client did wrong, or
    /// gave up, changes nothing.
    pub failures: u32,
    /// The status of the latest failure; 0 = an answer broke off or never came.
    pub last_status: u16,
}

#[derive(Default)]
pub(crate) struct SignsCounter {
    progress: AtomicU64,
    failures: AtomicU32,
    last_status: AtomicU16,
}

impl SignsCounter {
    pub(crate) fn read(&self) -> Signs {
        Signs {
            progress: self.progress.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_status: self.last_status.load(Ordering::Relaxed),
        }
    }

    /// A piece of a good answer came.
    pub(crate) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A whole answer came, good or not.
    pub(crate) fn answered(&self, status: StatusCode) {
        if status.is_success() {
            self.progressed();
            self.failures.store(0, Ordering::Relaxed);
        } else if Self::is_failure(status) {
            self.failed(status.as_u16());
        }
    }

    /// Whether a status is the engine's own fault. 501 says "not my work".
    pub(crate) fn is_failure(status: StatusCode) -> bool {
        status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
    }

    /// An answer broke off, or none came.
    pub(crate) fn broke_off(&self) {
        self.failed(0);
    }

    fn failed(&self, status: u16) {
        self.last_status.store(status, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_did_wrong_counts_and_a_good_answer_begins_anew() {
        let counter = SignsCounter::default();
        for status in [500, 400, 404, 429, 501, 503] {
            counter.answered(StatusCode::from_u16(status).unwrap());
        }
        counter.broke_off();
        assert_eq!(counter.read(), Signs { progress: 0, failures: 3, last_status: 0 });
        counter.progressed();
        assert_eq!(counter.read().failures, 3, "a beginning is no answer yet");
        counter.answered(StatusCode::OK);
        assert_eq!((counter.read().progress, counter.read().failures), (2, 0));
    }
}
