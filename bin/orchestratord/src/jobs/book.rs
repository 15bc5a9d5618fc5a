//! Which jobs are worked on, and which come next. Pure: nothing here reads a disk or a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use orch_runtime::CancellationToken;
use workflow::JobId;

/// So many jobs are worked on at once. A job is mostly waiting for answers, and how many requests an engine takes is
/// its own affair; more jobs at once would only share the same slots, and each of them would end later.
pub(super) const MOST_AT_ONCE: usize = 4;
/// So many may wait: far more than anybody looks through, far less than would fill a disk.
const MOST_QUEUED: usize = 1000;

/// The jobs of a daemon's life.
#[derive(Debug, Default)]
pub(super) struct Book {
    queue: VecDeque<JobId>,
    running: BTreeMap<JobId, CancellationToken>,
    /// Jobs that end or go on when somebody decides.
    at_gate: BTreeSet<JobId>,
    closed: bool,
}

/// Nothing more can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Book {
    /// Puts a job behind those that wait. One that waits or runs already stays where it is.
    pub(super) fn enqueue(&mut self, id: &JobId) -> Result<(), Full> {
        if self.running.contains_key(id) || self.queue.contains(id) {
            return Ok(());
        }
        self.room()?;
        self.at_gate.remove(id);
        self.queue.push_back(id.clone());
        Ok(())
    }

    pub(super) fn room(&self) -> Result<(), Full> {
        if self.queue.len() < MOST_QUEUED { Ok(()) } else { Err(Full) }
    }

    /// The job whose turn it is, if there is a place, and what ends it.
    pub(super) fn begin_next(&mut self) -> Option<(JobId, CancellationToken)> {
        if self.closed || self.running.len() >= MOST_AT_ONCE {
            return None;
        }
        let id = self.queue.pop_front()?;
        let cancel = CancellationToken::new();
        self.running.insert(id.clone(), cancel.clone());
        Some((id, cancel))
    }

    /// Nobody works on it any more. `at_gate`: until somebody decides.
    pub(super) fn ended(&mut self, id: &JobId, at_gate: bool) {
        self.running.remove(id);
        if at_gate {
            self.at_gate.insert(id.clone());
        }
    }

    /// A job that waited at a gate when the last daemon ended.
    pub(super) fn note_at_gate(&mut self, id: JobId) {
        self.at_gate.insert(id);
    }

    /// Ends a job that is worked on; whether there was one.
    pub(super) fn cancel(&self, id: &JobId) -> bool {
        self.running.get(id).inspect(|cancel| cancel.cancel()).is_some()
    }

    pub(super) fn is_running(&self, id: &JobId) -> bool {
        self.running.contains_key(id)
    }

    pub(super) fn is_queued(&self, id: &JobId) -> bool {
        self.queue.contains(id)
    }

    pub(super) fn at_gate(&self) -> Vec<JobId> {
        self.at_gate.iter().cloned().collect()
    }

    /// How many run, and how many wait for their turn.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.queue.len())
    }

    /// No further job begins.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> JobId {
        JobId::new(&format!("job-{number}")).unwrap()
    }

    #[test]
    fn a_bounded_number_runs_and_the_rest_follow_in_their_order() {
        let mut book = Book::default();
        for number in 0..MOST_AT_ONCE + 2 {
            book.enqueue(&id(number)).unwrap();
            book.enqueue(&id(number)).unwrap();
        }
        for number in 0..MOST_AT_ONCE {
            assert_eq!(book.begin_next().unwrap().0, id(number));
        }
        assert!(book.begin_next().is_none());
        assert_eq!(book.counts(), (MOST_AT_ONCE, 2));
        book.ended(&id(2), false);
        assert_eq!(book.begin_next().unwrap().0, id(MOST_AT_ONCE));
        book.close();
        book.ended(&id(0), false);
        assert!(book.begin_next().is_none(), "a daemon that ends begins nothing");
    }

    #[test]
    fn a_job_at_a_gate_is_remembered_until_it_goes_on() {
        let mut book = Book::default();
        book.enqueue(&id(1)).unwrap();
        let (_, cancel) = book.begin_next().unwrap();
        assert!(book.cancel(&id(1)) && cancel.is_cancelled());
        book.ended(&id(1), true);
        assert_eq!(book.at_gate(), [id(1)]);
        assert!(!book.cancel(&id(1)));
        book.enqueue(&id(1)).unwrap();
        assert!(book.at_gate().is_empty() && book.is_queued(&id(1)));
    }

    #[test]
    fn the_queue_has_an_end() {
        let mut book = Book::default();
        for number in 0..MOST_QUEUED {
            book.enqueue(&id(number)).unwrap();
        }
        assert_eq!(book.enqueue(&id(MOST_QUEUED)), Err(Full));
        assert_eq!(book.enqueue(&id(3)), Ok(()), "it has its place already");
    }
}
