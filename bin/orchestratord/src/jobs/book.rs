//! Which jobs are worked on, and which come next. Pure: nothing here reads a disk or a clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;

use orch_runtime::CancellationToken;
use workflow::JobId;

/// So many jobs are worked on at once. A job is mostly waiting for answers, and how many requests an engine takes is
/// its own affair; more jobs at once would only share the same slots, and each of them would end later.
pub(super) const MOST_AT_ONCE: usize = 4;
/// So many may wait: far more than anybody looks through, far less than would fill a disk.
const MOST_QUEUED: usize = 1000;

/// Of one submitter: nobody takes the places of all others.
const MOST_OF_ONE: usize = MOST_QUEUED / 4;

/// The jobs of a daemon's life.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Jobs that wait, by their submitter, each in the order in which they came. Nobody has an empty queue.
    queues: BTreeMap<String, VecDeque<JobId>>,
    /// Whose job was begun last: next is the turn of whoever comes behind.
    last: String,
    running: BTreeMap<JobId, Running>,
    /// Jobs that end or go on when somebody decides, with their submitters.
    at_gate: BTreeMap<JobId, String>,
    closed: bool,
}

#[derive(Debug)]
struct Running {
    submitter: String,
    cancel: CancellationToken,
}

/// Nothing more can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Queue,
    /// Of this submitter.
    Share,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue => write!(f, "too many jobs wait already: {MOST_QUEUED}"),
            Self::Share => write!(f, "too many jobs of one key wait already: {MOST_OF_ONE}"),
        }
    }
}

impl Book {
    /// Puts a job behind those of its submitter that wait. One that waits or runs already stays where it is. Whoever
    /// would take in something new asks for [`Book::room`] first, before anything of it is written; as others may do so
    /// at the same moment, the queue can become a few jobs longer than that.
    pub(super) fn enqueue(&mut self, id: &JobId, submitter: &str) {
        if self.running.contains_key(id) || self.is_queued(id) {
            return;
        }
        self.at_gate.remove(id);
        self.queues.entry(submitter.to_owned()).or_default().push_back(id.clone());
    }

    /// Puts a job that waited at a gate behind others, if there is room; it is looked at again in a moment.
    pub(super) fn enqueue_from_gate(&mut self, id: &JobId) {
        let Some(submitter) = self.at_gate.get(id).cloned() else { return };
        if self.room(&submitter).is_ok() {
            self.enqueue(id, &submitter);
        }
    }

    /// Whether one more job of this submitter may wait.
    pub(super) fn room(&self, submitter: &str) -> Result<(), Full> {
        if self.queued() >= MOST_QUEUED {
            return Err(Full::Queue);
        }
        let theirs = self.queues.get(submitter).map_or(0, VecDeque::len);
        if theirs < MOST_OF_ONE { Ok(()) } else { Err(Full::Share) }
    }

    /// The job whose turn it is, if there is a place, and what ends it. Submitters take turns.
    pub(super) fn begin_next(&mut self) -> Option<(JobId, CancellationToken)> {
        if self.closed || self.running.len() >= MOST_AT_ONCE {
            return None;
        }
        let behind = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let next = self.queues.range::<str, _>(behind).next().or_else(|| self.queues.first_key_value());
        let submitter = next?.0.clone();
        let queue = self.queues.get_mut(&submitter)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&submitter);
        }
        self.last.clone_from(&submitter);
        let cancel = CancellationToken::new();
        self.running.insert(id.clone(), Running { submitter, cancel: cancel.clone() });
        Some((id, cancel))
    }

    /// Nobody works on it any more. `at_gate`: until somebody decides.
    pub(super) fn ended(&mut self, id: &JobId, at_gate: bool) {
        if let Some(Running { submitter, .. }) = self.running.remove(id).filter(|_| at_gate) {
            self.at_gate.insert(id.clone(), submitter);
        }
    }

    /// A job that waited at a gate when the last daemon ended.
    pub(super) fn note_at_gate(&mut self, id: JobId, submitter: String) {
        self.at_gate.insert(id, submitter);
    }

    /// Ends a job that is worked on; whether there was one.
    pub(super) fn cancel(&self, id: &JobId) -> bool {
        self.running.get(id).inspect(|running| running.cancel.cancel()).is_some()
    }

    pub(super) fn running(&self) -> Vec<JobId> {
        self.running.keys().cloned().collect()
    }

    pub(super) fn is_running(&self, id: &JobId) -> bool {
        self.running.contains_key(id)
    }

    pub(super) fn is_queued(&self, id: &JobId) -> bool {
        self.queues.values().any(|queue| queue.contains(id))
    }

    pub(super) fn at_gate(&self) -> Vec<JobId> {
        self.at_gate.keys().cloned().collect()
    }

    /// How many run, and how many wait for their turn.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.queued())
    }

    /// No further job begins.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    fn queued(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
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
            book.enqueue(&id(number), "one");
            book.enqueue(&id(number), "one");
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
        book.enqueue(&id(1), "one");
        let (_, cancel) = book.begin_next().unwrap();
        assert!(book.cancel(&id(1)) && cancel.is_cancelled());
        book.ended(&id(1), true);
        assert_eq!(book.at_gate(), [id(1)]);
        assert!(!book.cancel(&id(1)));
        book.enqueue(&id(1), "one");
        assert!(book.at_gate().is_empty() && book.is_queued(&id(1)));
    }

    #[test]
    fn the_queue_has_an_end_and_nobody_has_all_of_it() {
        let mut book = Book::default();
        for number in 0..MOST_OF_ONE {
            assert_eq!(book.room("one"), Ok(()));
            book.enqueue(&id(number), "one");
        }
        assert_eq!(book.room("one"), Err(Full::Share));
        for number in MOST_OF_ONE..MOST_QUEUED {
            let submitter = format!("another {}", number % 5);
            assert_eq!(book.room(&submitter), Ok(()));
            book.enqueue(&id(number), &submitter);
        }
        assert_eq!(book.room("the last"), Err(Full::Queue));
    }

    #[test]
    fn submitters_take_turns() {
        let mut book = Book::default();
        for number in 0..6 {
            book.enqueue(&id(number), "many");
        }
        book.enqueue(&id(10), "few");
        book.enqueue(&id(20), "some");
        book.enqueue(&id(21), "some");
        let mut begun = Vec::new();
        while let Some((id, _)) = book.begin_next() {
            book.ended(&id, false);
            begun.push(id);
        }
        assert_eq!(begun, [10, 0, 20, 1, 21, 2, 3, 4, 5].map(id));
    }
}
