//! Steps that wait for somebody's decision.

use std::sync::Arc;

use serde_json::{Value, json};
use workflow_spec::{FailureKind, GateStep, Names, StepOutput};

use super::sight::unusable;
use crate::CallFailure;

/// The choice that fails its step.
const REJECT: &str = "reject";

/// A `gate` step with its message rendered, or a question of our own about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) message: String,
    pub(crate) choices: Vec<String>,
}

impl Gate {
    pub(crate) fn render(step: &GateStep, names: &Arc<dyn Names>) -> Result<Self, CallFailure> {
        let message = step.message.render(names).map_err(|error| unusable("message", &error))?;
        Ok(Self { message, choices: step.choices.clone() })
    }

    /// A decision is about this message at this step: another message asks again.
    pub(crate) fn key_document(&self, step: &str) -> Value {
        json!({"v": 1, "kind": "gate", "message": self.message, "choices": self.choices, "step": step})
    }

    pub(crate) fn offered(&self) -> Vec<&str> {
        self.choices.iter().map(String::as_str).collect()
    }

    pub(crate) fn offers(&self, choice: &str) -> bool {
        self.choices.iter().any(|offered| offered == choice)
    }

    /// What a decision makes of the step.
    pub(crate) fn outcome(choice: &str, by: &str) -> Result<StepOutput, CallFailure> {
        if choice == REJECT {
            return Err(CallFailure::new(FailureKind::Cancelled, format!("rejected by {by}")));
        }
        Ok(StepOutput::of_text(choice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_reject_fails_the_step_and_any_other_choice_is_its_output() {
        assert_eq!(Gate::outcome("ship it", "anna").unwrap(), StepOutput::of_text("ship it"));
        let failure = Gate::outcome("reject", "anna").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Cancelled);
        assert!(failure.message.contains("anna"));
    }
}
