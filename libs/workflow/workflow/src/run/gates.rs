//! Gates: steps that wait for somebody's decision, and hold no place while they do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use workflow_spec::{StepKind, StepOutput};

use super::driver::{Driver, Heard};
use super::nodes::{NodeRef, NodeResult, Source, State, Work};
use crate::CallFailure;
use crate::budget::BUDGET_GATE;
use crate::control::{Asked, Decided, Wish, wishes};
use crate::key::{Key, key_of};
use crate::steps::Gate;
use crate::store::output_digest;

/// Between two looks at what people have left.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A gate that waits.
pub(crate) struct OpenGate {
    pub(crate) gate: Gate,
    pub(crate) key: Key,
    pub(crate) since: Instant,
    /// A step of another kind, of whose effect nobody knows whether it happened.
    pub(crate) unsure: Option<Box<Work>>,
}

impl Driver {
    pub(super) fn open_gate(&mut self, at: NodeRef) {
        let node = self.scopes.node(at);
        let (step, id) = (node.step.clone(), node.id.clone());
        let StepKind::Gate(gate) = &step.kind else { return };
        let gate = match Gate::render(gate, &self.names(at)) {
            Ok(gate) => gate,
            Err(failure) => return self.fail_unbegun(at, &failure),
        };
        let key = key_of(&gate.key_document(&id));
        self.announce_started(at, 1, key.as_str());
        let open = OpenGate { gate, key, since: Instant::now(), unsure: None };
        let past = self.past.decided.get(&*id).filter(|past| past.key.as_deref() == Some(key.as_str()));
        if let Some(past) = past {
            let choice = past.choice.clone();
            return self.decided(at, open, &choice, "an earlier decision");
        }
        self.ask(at, open);
    }

    /// Takes the decision that is left already, or waits for one.
    pub(super) fn ask(&mut self, at: NodeRef, open: OpenGate) {
        let id = self.scopes.node(at).id.clone();
        if let Some((choice, by)) = self.left_decision(&id, &open.gate) {
            return self.decided(at, open, &choice, &by);
        }
        if let Some(foresee) = &self.foresee {
            foresee.gate(&id);
            return self.leave(at);
        }
        self.recorder.gate_waiting(&id, &open.gate.message, &open.gate.offered());
        self.scopes.set_state(at, State::Deciding(Box::new(open)));
    }

    /// A decision that was left while nobody ran the job.
    pub(super) fn left_decision(&mut self, id: &str, gate: &Gate) -> Option<(String, String)> {
        let wishes = wishes(&self.recorder.folder().control());
        let (wish, decided) = wishes.into_iter().find_map(|wish| match &wish.what {
            Asked::Decide(decided) if decided.step == id && gate.offers(&decided.choice) => {
                Some((wish.clone(), decided.clone()))
            }
            _ => None,
        })?;
        self.recorder.gate_decided(id, &decided.choice, Some(&decided.by));
        self.taken_up.push(wish);
        Some((decided.choice, decided.by))
    }

    /// People may leave wishes at any time.
    pub(super) fn watch_control(&mut self) {
        let (control, tell) = (self.recorder.folder().control(), self.tell.clone());
        self.tasks.spawn(async move {
            loop {
                let folder = control.clone();
                let found = tokio::task::spawn_blocking(move || wishes(&folder)).await.unwrap_or_default();
                if !found.is_empty() && tell.send(Heard::Wished(found)).is_err() {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }

    /// What cannot be done yet is left where it lies: the step may still come.
    pub(super) fn wished(&mut self, wishes: Vec<Wish>) {
        for wish in wishes {
            match &wish.what {
                _ if self.taken_up.contains(&wish) => {}
                Asked::Cancel => {
                    if self.cancelled.is_none() {
                        self.cancel_job("somebody asked for it");
                    }
                    self.taken_up.push(wish);
                }
                Asked::Decide(decided) => self.decide(&decided.clone(), wish),
            }
        }
    }

    fn decide(&mut self, decided: &Decided, wish: Wish) {
        if decided.step == BUDGET_GATE && self.funds.is_asked() {
            self.taken_up.push(wish);
            return self.budget_decided(&decided.choice, &decided.by);
        }
        let is_it = |at: &NodeRef| *self.scopes.node(*at).id == *decided.step;
        let Some(at) = self.scopes.deciding().into_iter().find(is_it) else { return };
        let State::Deciding(open) = self.scopes.set_state(at, State::Pending) else { return };
        self.taken_up.push(wish);
        if open.gate.offers(&decided.choice) {
            self.recorder.gate_decided(&decided.step, &decided.choice, Some(&decided.by));
            self.decided(at, *open, &decided.choice, &decided.by);
        } else {
            tracing::warn!(step = decided.step, choice = decided.choice, "the gate does not offer that");
            self.scopes.set_state(at, State::Deciding(open));
        }
    }

    /// What a decision makes of a gate.
    pub(super) fn decided(&mut self, at: NodeRef, open: OpenGate, choice: &str, by: &str) {
        if let Some(work) = open.unsure {
            return self.became(at, work, choice, by);
        }
        let outcome: Result<StepOutput, CallFailure> = Gate::outcome(choice, by);
        match outcome {
            Ok(output) => {
                let result = NodeResult {
                    out: output_digest(&output),
                    output: Arc::new(output),
                    key: open.key,
                    source: Source::Made,
                    since: open.since,
                    attempt: 1,
                    calls: 0,
                    places: None,
                    blobs: Vec::new(),
                };
                self.settle(at, result);
            }
            Err(failure) => self.fail_with(at, 1, open.since, &failure, None),
        }
    }
}
