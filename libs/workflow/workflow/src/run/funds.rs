//! The job's budget: no request to a model begins when it is used up.

use workflow_spec::{Budget, FailureKind};

use super::driver::Driver;
use super::nodes::{NodeRef, State, Work};
use super::plan::Way;
use crate::CallFailure;
use crate::budget::{BUDGET_GATE, CONTINUE, Meter, Room, STOP};
use crate::past::Past;
use crate::steps::Gate;

pub(super) struct Funds {
    meter: Meter,
    /// What was allowed when the journal was told last that it is used up.
    told: Option<u64>,
    /// The gate waits for somebody.
    asked: bool,
    waiting: Vec<NodeRef>,
}

impl Funds {
    pub(super) fn new(budget: Option<Budget>, past: &Past) -> Self {
        let meter = Meter::new(budget, past.usage().total(), past.budget_extensions);
        Self { meter, told: None, asked: false, waiting: Vec::new() }
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.asked
    }

    pub(super) fn spend(&mut self, tokens: u64) {
        self.meter.spend(tokens);
    }

    /// Why a further request must not leave. Where somebody is to be asked, what was begun before goes on.
    pub(super) fn refusal(&self) -> Option<CallFailure> {
        let refused = self.meter.room() == Room::None;
        refused.then(|| CallFailure::new(FailureKind::Budget, self.meter.refusal()))
    }

    fn gate(&self) -> Gate {
        let message = format!(
            "The budget of {} tokens is used up: {} were used. Go on with as much again?",
            self.meter.allowed().unwrap_or_default(),
            self.meter.used()
        );
        Gate { message, choices: vec![CONTINUE.to_owned(), STOP.to_owned()] }
    }
}

impl Driver {
    /// The work, if it may be done now. Else the step has failed, or waits for somebody who allows more.
    pub(super) fn afford(&mut self, at: NodeRef, work: Box<Work>) -> Option<Box<Work>> {
        if !matches!(self.scopes.node(at).way, Way::Model { .. }) {
            return Some(work);
        }
        if let Some(refusal) = self.funds.refusal() {
            self.tell_of_budget();
            self.fail(at, *work, &refusal);
            return None;
        }
        if self.funds.meter.room() == Room::Left {
            return Some(work);
        }
        self.tell_of_budget();
        self.scopes.set_state(at, State::Unfunded(work));
        self.funds.waiting.push(at);
        self.ask_for_funds();
        None
    }

    /// Once for each amount that is used up.
    pub(super) fn tell_of_budget(&mut self) {
        let Some(allowed) = self.funds.meter.allowed() else { return };
        if self.funds.told.replace(allowed) != Some(allowed) {
            self.recorder.budget_exceeded(allowed, self.funds.meter.used());
        }
    }

    fn ask_for_funds(&mut self) {
        if self.funds.asked {
            return;
        }
        self.funds.asked = true;
        let gate = self.funds.gate();
        match self.left_decision(BUDGET_GATE, &gate) {
            Some((choice, _)) => self.funds_decided(&choice),
            None => self.recorder.gate_waiting(BUDGET_GATE, &gate.message, &gate.offered()),
        }
    }

    /// Somebody answers while the job runs.
    pub(super) fn budget_decided(&mut self, choice: &str, by: &str) {
        if self.funds.gate().offers(choice) {
            self.recorder.gate_decided(BUDGET_GATE, choice, Some(by));
            self.funds_decided(choice);
        } else {
            tracing::warn!(choice, "the budget's gate does not offer that");
        }
    }

    fn funds_decided(&mut self, choice: &str) {
        self.funds.asked = false;
        self.funds.meter.decide(choice);
        for at in std::mem::take(&mut self.funds.waiting) {
            let is_it = |state: &State| matches!(state, State::Unfunded(_));
            let Some(work) = self.take_work(at, is_it) else { continue };
            if let Some(refusal) = self.funds.refusal() {
                self.fail(at, *work, &refusal);
            } else {
                self.scopes.set_state(at, State::Retrying(work));
                self.enqueue(at);
            }
        }
    }
}
