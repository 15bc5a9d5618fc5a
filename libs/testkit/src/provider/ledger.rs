//! What the fake provider has seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::script::{Rule, Script};

/// How many of the latest requests are kept.
const KEPT: usize = 2000;

/// Counts of requests that ask for an answer; lists of models are counted apart.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProviderStats {
    pub connections: u64,
    pub requests: u64,
    /// Answered to the end, whatever the answer.
    pub completed: u64,
    /// The client left before the end.
    pub cancelled: u64,
    pub in_flight: u64,
    pub max_in_flight: u64,
    /// Requests for lists of models.
    pub listings: u64,
    /// How often each prompt came: the last message of the request.
    pub prompts: BTreeMap<String, u64>,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct SeenRequest {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON, else as text.
    pub body: Value,
    /// When it came, on the provider's clock.
    pub at_ms: u64,
}

/// Script and counts, behind one lock.
pub(crate) struct Ledger {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    script: Script,
    stats: ProviderStats,
    seen: VecDeque<SeenRequest>,
}

impl Ledger {
    pub(crate) fn new(script: Script) -> Self {
        let state = State { script, stats: ProviderStats::default(), seen: VecDeque::new() };
        Self { began: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self) -> Script {
        self.state().script.clone()
    }

    pub(crate) fn set_script(&self, script: Script) {
        self.state().script = script;
    }

    pub(crate) fn stats(&self) -> ProviderStats {
        self.state().stats.clone()
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.state().seen.iter().cloned().collect()
    }

    pub(crate) fn connected(&self) {
        self.state().stats.connections += 1;
    }

    pub(crate) fn listed(&self) {
        self.state().stats.listings += 1;
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes a request and finds its rule. The number says how often this prompt has come, from 1.
    pub(crate) fn begin(
        &self,
        request: SeenRequest,
        prompt: &Prompt,
        path: &str,
    ) -> (Script, Option<Rule>, u64) {
        let state = &mut *self.state();
        if state.seen.len() == KEPT {
            state.seen.pop_front();
        }
        state.seen.push_back(request);
        let stats = &mut state.stats;
        stats.requests += 1;
        stats.in_flight += 1;
        stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        let count = stats.prompts.entry(prompt.last.clone()).or_default();
        *count += 1;
        let count = *count;
        let fitting = state.script.rules.iter_mut().find(|rule| fits(rule, prompt, path));
        let rule = fitting.map(|rule| {
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            rule.clone()
        });
        (state.script.settings(), rule, count)
    }

    pub(crate) fn end(&self, completed: bool) {
        let stats = &mut self.state().stats;
        stats.in_flight -= 1;
        if completed {
            stats.completed += 1;
        } else {
            stats.cancelled += 1;
        }
    }
}

/// What a request asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    pub(crate) model: String,
    /// All messages, a line break between them.
    pub(crate) all: String,
    /// The last message.
    pub(crate) last: String,
}

fn fits(rule: &Rule, prompt: &Prompt, path: &str) -> bool {
    rule.times != Some(0)
        && prompt.all.contains(&rule.contains)
        && rule.model.as_ref().is_none_or(|model| *model == prompt.model)
        && rule.path.as_ref().is_none_or(|beginning| path.starts_with(beginning))
}

impl Script {
    /// Everything but the rules, of which there may be thousands.
    fn settings(&self) -> Script {
        Script {
            key: self.key.clone(),
            models: self.models.clone(),
            headers: self.headers.clone(),
            rules: Vec::new(),
            ..*self
        }
    }
}
