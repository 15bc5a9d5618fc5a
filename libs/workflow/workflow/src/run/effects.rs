//! Effects outside of the run: on the disk before they happen, and never repeated while nobody knows whether they
//! did. What a step with `effect: none` does may be done again at any time.

use std::sync::Arc;

use serde_json::Value;
use workflow_spec::{Effect, FailureKind};

use super::driver::Driver;
use super::gates::OpenGate;
use super::nodes::{NodeRef, State, Work};
use crate::past::PastOutcome;
use crate::steps::{Action, Attempt, Gate, Performed};
use crate::{CallFailure, PortFuture};

/// It did not happen, or may happen twice.
const REPEAT: &str = "repeat";
/// It happened. What the step would have said is not known: its output is empty.
const DONE: &str = "done";
const FAIL: &str = "fail";

impl Driver {
    pub(super) fn has_effect(&self, at: NodeRef) -> bool {
        self.scopes.node(at).step.effect == Effect::External
    }

    /// Why the effect may have happened already, where an earlier life has begun it and left no result to go on with.
    pub(super) fn may_have_happened(&self, at: NodeRef, work: &Work) -> Option<&'static str> {
        if work.is_sure || work.attempt > 0 || !self.has_effect(at) {
            return None;
        }
        let tried = self.past.tried.get(work.document.key().as_str())?;
        match tried.outcome {
            // Failed so: the job's time was over, or somebody said that it failed without knowing.
            PastOutcome::Unknown
            | PastOutcome::Cancelled
            | PastOutcome::Failed(Some(FailureKind::Timeout | FailureKind::Cancelled)) => {
                Some("the run was ended while it was under way")
            }
            PastOutcome::Failed(_) => None,
            // A loss of power, or somebody, took it.
            PastOutcome::Succeeded => Some("it succeeded, and its result is lost"),
        }
    }

    pub(super) fn ask_what_became(&mut self, at: NodeRef, work: Box<Work>, why: &str) {
        let id = self.scopes.node(at).id.clone();
        let key = work.document.key();
        let message = format!(
            "It is not certain what became of {id}: {why}. \
             Repeat it, take it as done, or let it fail?"
        );
        let choices = [REPEAT, DONE, FAIL].map(str::to_owned).to_vec();
        let answered = self.answer_of_past(&id, &work);
        let since = work.since;
        let open = OpenGate { gate: Gate { message, choices }, key, since, unsure: Some(work) };
        match answered {
            Some(choice) => self.decided(at, open, &choice, "an earlier decision"),
            None => self.ask(at, open),
        }
    }

    /// An answer that was journalled and not acted upon: the effect was not begun again after it. What is taken as done
    /// begins in the journal only.
    fn answer_of_past(&self, id: &str, work: &Work) -> Option<String> {
        let key = work.document.key();
        let tried = self.past.tried.get(key.as_str()).filter(|_| work.attempt == 0)?;
        let past = self.past.decided.get(id)?;
        let is_not_begun = past.begun == tried.begun || past.choice == DONE;
        let is_of_it = past.key.as_deref() == Some(key.as_str()) && is_not_begun;
        is_of_it.then(|| past.choice.clone())
    }

    /// Somebody says what became of an effect.
    pub(super) fn became(&mut self, at: NodeRef, mut work: Box<Work>, choice: &str, by: &str) {
        work.is_sure = true;
        match choice {
            REPEAT => {}
            DONE => {
                work.action = Arc::new(DoneBefore);
                work.stale = false;
            }
            _ => {
                let message = format!("it is not known whether it took effect, and {by} lets it fail");
                return self.fail(at, *work, &CallFailure::new(FailureKind::Cancelled, message));
            }
        }
        self.scopes.set_state(at, State::Retrying(work));
        self.enqueue(at);
    }
}

/// What was done by an attempt that nobody saw end.
struct DoneBefore;

impl Action for DoneBefore {
    /// The document of the step itself stays.
    fn key_document(&self) -> Value {
        Value::Null
    }

    fn perform(self: Arc<Self>, _attempt: Attempt) -> PortFuture<Result<Performed, CallFailure>> {
        Box::pin(std::future::ready(Ok(Performed::default())))
    }
}
