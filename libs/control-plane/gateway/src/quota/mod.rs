//! What one key may use: requests and tokens a minute, requests at a time, tokens in its life.
//!
//! The rules are pure (`state`, `bucket`); here they meet the clock, the requests of many threads, and whoever
//! writes down what was used.

mod bucket;
mod estimate;
mod headers;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use llm_adapters::{Problem, Usage};
use orch_core::ErrorCode;
use tokio::time::Instant;

pub(crate) use estimate::Estimate;
use state::{Denied, State};

/// Nobody knows when a running request ends; a client that asks again so often does no harm.
const PLACE_MAY_BE_FREE: Duration = Duration::from_secs(1);

/// The limits of one key; absent ones do not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests a minute.
    pub rpm: Option<u32>,
    /// Tokens a minute, of prompts and answers.
    pub tpm: Option<u64>,
    /// Requests at a time.
    pub concurrency: Option<u32>,
    /// Tokens in the key's life.
    pub budget: Option<u64>,
}

/// Writes down what keys use, so that a budget outlives the process.
pub trait Ledger: Send + Sync {
    /// A request of this key ended and has used so many tokens. Never blocks.
    fn used(&self, key: &str, tokens: u64);
}

/// One key's limits at work. All of its requests share one.
pub struct Quota {
    key: Arc<str>,
    ledger: Arc<dyn Ledger>,
    state: Mutex<State>,
}

impl Quota {
    /// `spent` is what the key has used in its life so far.
    pub fn new(key: Arc<str>, limits: KeyLimits, spent: u64, ledger: Arc<dyn Ledger>) -> Self {
        Self { key, ledger, state: Mutex::new(State::new(limits, spent, Instant::now())) }
    }

    /// Lets a request begin that will use about so many tokens.
    pub(crate) fn enter(self: &Arc<Self>, estimate: Estimate) -> Result<Permit, Problem> {
        let entered = self.lock().enter(estimate.total(), Instant::now());
        entered.map_err(problem)?;
        Ok(Permit { quota: Arc::clone(self), estimate, used: 0 })
    }

    /// Tells a client where it stands, in the headers that OpenAI's libraries know.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let now = Instant::now();
        let (requests, tokens) = {
            let mut state = self.lock();
            (state.requests(now), state.tokens(now))
        };
        headers::write(headers, requests, tokens);
    }

    /// Requests of this key that run now.
    pub fn running(&self) -> u32 {
        self.lock().running()
    }

    /// Tokens that the key has used in its life.
    pub fn spent(&self) -> u64 {
        self.lock().spent()
    }

    /// The counters are whole after each step, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quota").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A request that was let in. When it goes, however it ended, its place is free and what it has not used is back.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    estimate: Estimate,
    used: u64,
}

impl Permit {
    /// A generation has ended, and its engine told what it used. One that told nothing, because it was cut off or
    /// does not count, has used its prompt and the pieces of its answer that went by.
    pub(crate) fn used(&mut self, told: &Usage, pieces: u64) {
        self.used = self.estimate.corrected(told, pieces);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.quota.lock().leave(self.estimate.total(), self.used, Instant::now());
        if self.used > 0 {
            self.quota.ledger.used(&self.quota.key, self.used);
        }
    }
}

fn problem(denied: Denied) -> Problem {
    let limited = |message: String, wait| Problem::new(ErrorCode::RateLimited, message).retry_after(wait);
    match denied {
        Denied::Requests(wait) => limited("this key has used its requests of the minute".to_owned(), wait),
        Denied::Tokens(wait) => limited("this key has used its tokens of the minute".to_owned(), wait),
        Denied::Concurrency(most) => limited(
            format!("{most} requests of this key are running, which is all it may run at a time"),
            PLACE_MAY_BE_FREE,
        ),
        Denied::BudgetReserved => limited(
            "what is left of this key's budget is reserved by its running requests".to_owned(),
            PLACE_MAY_BE_FREE,
        ),
        Denied::BudgetSpent(budget) => Problem::new(
            ErrorCode::BudgetExhausted,
            format!("this key has used its budget of {budget} tokens"),
        ),
    }
}
