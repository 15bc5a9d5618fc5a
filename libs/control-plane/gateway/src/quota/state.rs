//! What one key has left. Pure: the time is told, nothing is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::KeyLimits;
use super::bucket::Bucket;

/// Why a request may not begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Its turn comes after this time.
    Requests(Duration),
    Tokens(Duration),
    /// So many run already.
    Concurrency(u32),
    /// What is left may be used up by those that run.
    BudgetReserved,
    /// Nothing is left.
    BudgetSpent(u64),
}

/// The counters of one key.
#[derive(Clone, Debug)]
pub(super) struct State {
    limits: KeyLimits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u32,
    /// Tokens that running requests are expected to use.
    reserved: u64,
    spent: u64,
}

/// What a client may know of its limits: limit, what is left, and when all of it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) reset: Duration,
}

impl State {
    pub(super) fn new(limits: KeyLimits, spent: u64, now: Instant) -> Self {
        Self {
            limits,
            requests: limits.rpm.map(|limit| Bucket::full(limit.into(), now)),
            tokens: limits.tpm.map(|limit| Bucket::full(limit, now)),
            running: 0,
            reserved: 0,
            spent,
        }
    }

    /// Lets a request begin that will use about so many tokens, or says why not. A refusal costs nothing.
    pub(super) fn enter(&mut self, estimate: u64, now: Instant) -> Result<(), Denied> {
        if let Some(budget) = self.limits.budget {
            if self.spent >= budget {
                return Err(Denied::BudgetSpent(budget));
            }
            if self.spent.saturating_add(self.reserved) >= budget {
                return Err(Denied::BudgetReserved);
            }
        }
        if let Some(most) = self.limits.concurrency.filter(|most| self.running >= *most) {
            return Err(Denied::Concurrency(most));
        }
        let until = |bucket: &mut Option<Bucket>, amount| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait_for(amount, now))
        };
        let wait = until(&mut self.requests, 1);
        if !wait.is_zero() {
            return Err(Denied::Requests(wait));
        }
        let wait = until(&mut self.tokens, estimate);
        if !wait.is_zero() {
            return Err(Denied::Tokens(wait));
        }
        if let Some(requests) = &mut self.requests {
            requests.take(1);
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.take(estimate);
        }
        self.running += 1;
        self.reserved = self.reserved.saturating_add(estimate);
        Ok(())
    }

    /// A request that was let in has ended and used so many tokens.
    pub(super) fn leave(&mut self, estimate: u64, used: u64, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(estimate);
        self.spent = self.spent.saturating_add(used);
        if let Some(tokens) = &mut self.tokens {
            tokens.correct(estimate, used, now);
        }
    }

    pub(super) fn requests(&mut self, now: Instant) -> Option<Standing> {
        self.requests.as_mut().map(|bucket| standing(bucket, now))
    }

    pub(super) fn tokens(&mut self, now: Instant) -> Option<Standing> {
        self.tokens.as_mut().map(|bucket| standing(bucket, now))
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    pub(super) fn spent(&self) -> u64 {
        self.spent
    }
}

fn standing(bucket: &mut Bucket, now: Instant) -> Standing {
    Standing { limit: bucket.limit(), remaining: bucket.remaining(now), reset: bucket.full_in(now) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const OPEN: KeyLimits = KeyLimits { rpm: None, tpm: None, concurrency: None, budget: None };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_minutes_requests_may_come_at_once_and_then_one_by_one() {
        let mut now = Instant::now();
        let mut state = State::new(KeyLimits { rpm: Some(3), ..OPEN }, 0, now);
        for _ in 0..3 {
            state.enter(0, now).unwrap();
        }
        assert_eq!(state.enter(0, now), Err(Denied::Requests(SECOND * 20)));
        now += SECOND * 5;
        assert_eq!(state.enter(0, now), Err(Denied::Requests(SECOND * 15)));
        now += SECOND * 15;
        state.enter(0, now).unwrap();
        assert_eq!(state.enter(0, now), Err(Denied::Requests(SECOND * 20)));
    }

    #[test]
    fn tokens_that_were_not_used_come_back() {
        let now = Instant::now();
        let mut state = State::new(KeyLimits { tpm: Some(600), ..OPEN }, 0, now);
        state.enter(500, now).unwrap();
        assert_eq!(state.enter(200, now), Err(Denied::Tokens(SECOND * 10)));
        state.leave(500, 100, now);
        assert_eq!(state.tokens(now).unwrap().remaining, 500);
        state.enter(200, now).unwrap();
    }

    #[test]
    fn tokens_beyond_the_estimate_are_owed() {
        let now = Instant::now();
        let mut state = State::new(KeyLimits { tpm: Some(600), ..OPEN }, 0, now);
        state.enter(100, now).unwrap();
        state.leave(100, 1200, now);
        assert_eq!(state.tokens(now).unwrap(), Standing { limit: 600, remaining: 0, reset: SECOND * 120 });
        assert_eq!(state.enter(10, now), Err(Denied::Tokens(SECOND * 61)));
    }

    #[test]
    fn a_request_larger_than_a_minutes_tokens_waits_for_all_of_them_and_not_forever() {
        let now = Instant::now();
        let mut state = State::new(KeyLimits { tpm: Some(600), ..OPEN }, 0, now);
        state.enter(10, now).unwrap();
        assert_eq!(state.enter(1_000_000, now), Err(Denied::Tokens(SECOND)));
        state.enter(1_000_000, now + SECOND).unwrap();
    }

    #[test]
    fn a_place_is_free_when_a_request_leaves() {
        let now = Instant::now();
        let mut state = State::new(KeyLimits { concurrency: Some(2), ..OPEN }, 0, now);
        state.enter(0, now).unwrap();
        state.enter(0, now).unwrap();
        assert_eq!(state.enter(0, now), Err(Denied::Concurrency(2)));
        state.leave(0, 9, now);
        state.enter(0, now).unwrap();
    }

    #[test]
    fn a_budget_ends_and_what_runs_is_counted_towards_it() {
        let now = Instant::now();
        let mut state = State::new(KeyLimits { budget: Some(100), ..OPEN }, 90, now);
        state.enter(50, now).unwrap();
        assert_eq!(state.enter(1, now), Err(Denied::BudgetReserved));
        state.leave(50, 5, now);
        state.enter(50, now).unwrap();
        state.leave(50, 5, now);
        assert_eq!(state.enter(1, now), Err(Denied::BudgetSpent(100)));
    }

    /// What a client does: waits, asks with an estimate, and lets its oldest request end with some use.
    type Step = (u64, u64, Option<u64>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        vec((0u64..20_000, 0u64..400, proptest::option::of(0u64..800)), 1..120)
    }

    proptest! {
        #[test]
        fn requests_never_exceed_a_full_bucket_and_what_flowed_in(
            limit in 1u32..50, steps in vec(0u64..5_000, 1..200)
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut state = State::new(KeyLimits { rpm: Some(limit), ..OPEN }, 0, start);
            let mut admitted: Vec<Instant> = Vec::new();
            for wait in steps {
                now += Duration::from_millis(wait);
                match state.enter(0, now) {
                    Ok(()) => admitted.push(now),
                    Err(denied) => {
                        // The time that is told is the right one: a moment before it is too early.
                        let Denied::Requests(wait) = denied else { panic!("{denied:?}") };
                        prop_assert!(state.clone().enter(0, now + wait).is_ok());
                        let early = wait.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(state.clone().enter(0, now + early).is_err());
                    }
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let flowed = u128::from(limit) * (*to - *from).as_nanos() / 60_000_000_000;
                    prop_assert!((last - first + 1) as u128 <= u128::from(limit) + flowed + 1);
                }
            }
        }

        #[test]
        fn what_is_used_stays_within_the_minutes_tokens_but_for_what_was_underestimated(
            limit in 1u64..500, steps in steps()
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut state = State::new(KeyLimits { tpm: Some(limit), ..OPEN }, 0, start);
            let mut running: Vec<u64> = Vec::new();
            let (mut used, mut excused) = (0u128, 0u128);
            for (wait, estimate, ends) in steps {
                now += Duration::from_millis(wait);
                if state.enter(estimate, now).is_ok() {
                    running.push(estimate);
                }
                if let (Some(tokens), false) = (ends, running.is_empty()) {
                    let estimate = running.remove(0);
                    state.leave(estimate, tokens, now);
                    used += u128::from(tokens);
                    excused += u128::from(tokens.saturating_sub(estimate.min(limit)));
                }
                let flowed = u128::from(limit) * (now - start).as_nanos() / 60_000_000_000;
                prop_assert!(used <= u128::from(limit) + flowed + excused + 1);
            }
        }

        #[test]
        fn places_and_reservations_are_conserved_and_a_refusal_costs_nothing(
            concurrency in 1u32..6, budget in 1u64..5_000, steps in steps()
        ) {
            let mut now = Instant::now();
            let limits = KeyLimits { rpm: Some(30), tpm: Some(900), concurrency: Some(concurrency), budget: Some(budget) };
            let mut state = State::new(limits, 0, now);
            let mut running: Vec<u64> = Vec::new();
            let mut spent = 0;
            for (wait, estimate, ends) in steps {
                now += Duration::from_millis(wait);
                let before = (state.requests(now), state.tokens(now), state.reserved);
                if state.enter(estimate, now).is_ok() {
                    running.push(estimate);
                } else {
                    prop_assert_eq!(before, (state.requests(now), state.tokens(now), state.reserved));
                }
                if let (Some(tokens), false) = (ends, running.is_empty()) {
                    state.leave(running.remove(0), tokens, now);
                    spent += tokens;
                }
                prop_assert_eq!(state.running as usize, running.len());
                prop_assert!(state.running <= concurrency);
                prop_assert_eq!(state.reserved, running.iter().sum::<u64>());
                prop_assert_eq!(state.spent, spent);
            }
        }
    }
}
