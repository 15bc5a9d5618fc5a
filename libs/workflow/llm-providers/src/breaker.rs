//! The circuit breaker of a provider: after enough failures in a row it is left alone for a while, then one
//! request may try.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use workflow::CallFailure;
use workflow_spec::FailureKind;

/// So many failures in a row open the circuit.
pub(crate) const FAILURES: u32 = 5;
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(10);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// What those are told who come while one request tries.
const WHILE_TRYING: Duration = Duration::from_secs(1);
/// A request that was given up without a word from the provider for so long counts as one that timed out.
const SILENT: Duration = Duration::from_secs(30);
/// Of what failed last, in letters.
const LONGEST_CAUSE: usize = 200;

/// The state machine; it is told the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circuit {
    state: State,
    /// How many requests have tried so far; the number tells the present one from one that was forgotten.
    tries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One request tries.
    HalfOpen {
        pause: Duration,
    },
}

/// Which try a request is, if it is one.
type Try = Option<u64>;

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Go(Try),
    /// Not before this time has passed.
    Wait(Duration),
}

impl Circuit {
    pub(crate) const NEW: Circuit = Circuit { state: State::Closed { failures: 0 }, tries: 0 };

    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Go(None),
            State::Open { until, .. } if now < until => Admission::Wait(until - now),
            State::Open { pause, .. } => {
                self.state = State::HalfOpen { pause };
                self.tries += 1;
                Admission::Go(Some(self.tries))
            }
            State::HalfOpen { .. } => Admission::Wait(WHILE_TRYING),
        }
    }

    /// The provider answered, if only to refuse.
    pub(crate) fn lives(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The answer to the request that tries has begun well: others may go, though the next failure opens it again.
    pub(crate) fn begins_to_live(&mut self, attempt: Try) {
        if matches!(self.state, State::HalfOpen { .. }) && attempt == Some(self.tries) {
            self.state = State::Closed { failures: FAILURES - 1 };
        }
    }

    pub(crate) fn failed(&mut self, now: Instant, attempt: Try) {
        match self.state {
            State::Closed { failures } if failures + 1 < FAILURES => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => {
                self.state = State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE };
            }
            State::HalfOpen { pause } if attempt == Some(self.tries) => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                self.state = State::Open { until: now + pause, pause };
            }
            // A request from before the circuit opened tells nothing new.
            State::HalfOpen { .. } | State::Open { .. } => {}
        }
    }

    /// A request was taken back before it could tell anything. If it was the one that tried, the next one tries.
    pub(crate) fn unknown(&mut self, now: Instant, attempt: Try) {
        if let State::HalfOpen { pause } = self.state
            && attempt == Some(self.tries)
        {
            self.state = State::Open { until: now, pause };
        }
    }
}

/// The circuit of one provider.
#[derive(Clone, Debug)]
pub(crate) struct Breaker(Arc<Mutex<Guarded>>);

#[derive(Debug)]
struct Guarded {
    circuit: Circuit,
    /// What failed last, in short.
    cause: String,
}

/// The provider is left alone.
#[derive(Debug)]
pub(crate) struct LeftAlone {
    /// After this time it is worth coming back.
    pub(crate) wait: Duration,
    /// What failed last, in short.
    pub(crate) cause: String,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Guarded { circuit: Circuit::NEW, cause: String::new() })))
    }

    /// Lets a request go, or says after which time to come back.
    pub(crate) fn admit(&self) -> Result<Passage, LeftAlone> {
        let now = Instant::now();
        let mut guarded = self.lock();
        match guarded.circuit.admit(now) {
            Admission::Go(attempt) => {
                Ok(Passage { breaker: self.clone(), attempt, began: now, heard: false, over: false })
            }
            Admission::Wait(wait) => Err(LeftAlone { wait, cause: guarded.cause.clone() }),
        }
    }

    fn failed(&self, now: Instant, attempt: Try, cause: String) {
        let mut guarded = self.lock();
        guarded.circuit.failed(now, attempt);
        guarded.cause = cause;
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let go. Dropped without a result, it counts as one that somebody took back.
#[derive(Debug)]
pub(crate) struct Passage {
    breaker: Breaker,
    attempt: Try,
    began: Instant,
    heard: bool,
    over: bool,
}

impl Passage {
    /// The answer has begun.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    /// The answer has begun, and is none of a server in trouble so far.
    pub(crate) fn heard_good(&mut self) {
        let attempt = self.attempt;
        self.breaker.lock().circuit.begins_to_live(attempt);
    }

    /// How it ended; `None` is well.
    pub(crate) fn end(mut self, failure: Option<&CallFailure>) {
        use FailureKind::{Connect, Overloaded, Timeout};
        self.over = true;
        match failure {
            Some(failure) if matches!(failure.kind, Connect | Timeout | Overloaded) => {
                self.breaker.failed(Instant::now(), self.attempt, in_short(failure));
            }
            _ => self.breaker.lock().circuit.lives(),
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (now, attempt) = (Instant::now(), self.attempt);
        let silent = !self.heard && now.saturating_duration_since(self.began) >= SILENT;
        if silent {
            let cause = format!("{}: it was given up without a word from there", FailureKind::Timeout.word());
            self.breaker.failed(now, attempt, cause);
        } else {
            self.breaker.lock().circuit.unknown(now, attempt);
        }
    }
}

/// The kind of a failure and how its message begins; messages hold no secret.
fn in_short(failure: &CallFailure) -> String {
    let text = format!("{}: {}", failure.kind.word(), failure.message);
    match text.char_indices().nth(LONGEST_CAUSE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.admit().unwrap().end(Some(&failure(FailureKind::Connect)));
    }

    fn failure(kind: FailureKind) -> CallFailure {
        CallFailure::new(kind, "no")
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_sent_away_hears_in_short_what_failed_last() {
        let breaker = Breaker::new();
        open(&breaker);
        assert_eq!(breaker.admit().unwrap_err().cause, "connect: no");
        tokio::time::advance(FIRST_PAUSE).await;
        let long = CallFailure::new(FailureKind::Overloaded, "é".repeat(1000));
        breaker.admit().unwrap().end(Some(&long));
        let cause = breaker.admit().unwrap_err().cause;
        assert!(cause.starts_with("overloaded: éé") && cause.chars().count() == LONGEST_CAUSE + 1, "{cause}");
    }

    fn open(breaker: &Breaker) {
        for _ in 0..FAILURES {
            fail(breaker);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_one_request_tries_after_the_pause() {
        let breaker = Breaker::new();
        open(&breaker);
        assert_eq!(breaker.admit().unwrap_err().wait, FIRST_PAUSE);
        tokio::time::advance(FIRST_PAUSE).await;
        let probe = breaker.admit().unwrap();
        assert_eq!(breaker.admit().unwrap_err().wait, WHILE_TRYING, "only one tries");
        probe.end(None);
        assert!(breaker.admit().is_ok(), "it lives again");
    }

    #[tokio::test(start_paused = true)]
    async fn others_need_not_wait_for_the_end_of_a_long_answer_that_begins_well() {
        let breaker = Breaker::new();
        open(&breaker);
        tokio::time::advance(FIRST_PAUSE).await;
        let mut probe = breaker.admit().unwrap();
        probe.heard_good();
        let other = breaker.admit().unwrap();
        probe.end(Some(&failure(FailureKind::Connect)));
        assert_eq!(breaker.admit().unwrap_err().wait, FIRST_PAUSE, "it broke off: open again");
        other.end(None);
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_answer_between_failures_keeps_it_closed() {
        let breaker = Breaker::new();
        for _ in 0..10 {
            for _ in 1..FAILURES {
                fail(&breaker);
            }
            breaker.admit().unwrap().end(None);
        }
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_a_sign_of_life() {
        let breaker = Breaker::new();
        for _ in 0..20 {
            breaker.admit().unwrap().end(Some(&failure(FailureKind::Validation)));
        }
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_doubles_up_to_two_minutes() {
        let breaker = Breaker::new();
        open(&breaker);
        for seconds in [10, 20, 40, 80, 120, 120] {
            let wait = breaker.admit().unwrap_err().wait;
            assert_eq!(wait, Duration::from_secs(seconds));
            tokio::time::advance(wait).await;
            fail(&breaker);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_somebody_takes_back_says_nothing_unless_it_was_silent_for_long() {
        let breaker = Breaker::new();
        for _ in 0..20 {
            drop(breaker.admit().unwrap());
        }
        assert!(breaker.admit().is_ok());
        let mut heard = breaker.admit().unwrap();
        heard.heard();
        let silent: Vec<Passage> = (0..FAILURES).map(|_| breaker.admit().unwrap()).collect();
        tokio::time::advance(SILENT).await;
        drop(heard);
        drop(silent);
        assert!(breaker.admit().is_err(), "as many timeouts");
        tokio::time::advance(FIRST_PAUSE).await;
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_ok(), "whoever comes next tries");
    }

    #[derive(Clone, Copy, Debug)]
    enum Deed {
        Ask,
        /// The request at this place in the line ends: well, badly, or taken back.
        End(usize, u8),
        Pass(u64),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            3 => Just(Deed::Ask),
            3 => (0_usize..8, 0_u8..3).prop_map(|(place, how)| Deed::End(place, how)),
            1 => (0_u64..130).prop_map(Deed::Pass),
        ];
        proptest::collection::vec(deed, 0..200)
    }

    proptest! {
        #[test]
        fn whatever_happens_it_neither_sticks_nor_lets_a_crowd_through(deeds in deeds()) {
            let begin = Instant::now();
            let mut now = begin;
            let mut circuit = Circuit::NEW;
            let mut flying: Vec<Try> = Vec::new();
            let mut failures_in_a_row = 0;
            for deed in deeds {
                match deed {
                    Deed::Ask => match circuit.admit(now) {
                        Admission::Go(attempt) => flying.push(attempt),
                        Admission::Wait(wait) => prop_assert!(!wait.is_zero() && wait <= LONGEST_PAUSE),
                    },
                    Deed::End(place, how) if place < flying.len() => {
                        let attempt = flying.remove(place);
                        match how {
                            0 => { circuit.lives(); failures_in_a_row = 0; }
                            1 => { circuit.failed(now, attempt); failures_in_a_row += 1; }
                            _ => circuit.unknown(now, attempt),
                        }
                    }
                    Deed::End(..) => {}
                    Deed::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                if matches!(circuit.state, State::Open { .. }) {
                    prop_assert!(failures_in_a_row >= FAILURES, "opened too early");
                }
                if matches!(circuit.state, State::HalfOpen { .. }) {
                    prop_assert_eq!(flying.iter().filter(|attempt| **attempt == Some(circuit.tries)).count(), 1, "one tries");
                }
            }
            // Once all requests have ended, the longest pause is enough.
            for attempt in flying {
                circuit.unknown(now, attempt);
            }
            now += LONGEST_PAUSE;
            let admitted = circuit.admit(now);
            prop_assert!(matches!(admitted, Admission::Go(_)), "it sticks");
        }
    }
}
