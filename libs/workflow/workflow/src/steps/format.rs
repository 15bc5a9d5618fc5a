//! What a program or a service says, as a step's output.

use serde_json::Value;
use workflow_spec::{FailureKind, OutputFormat, StepOutput};

use crate::CallFailure;

/// The word in key documents.
pub(crate) const fn word(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Text => "text",
        OutputFormat::Json => "json",
    }
}

/// The text as the step's output. `what` says whose it is, where it is not the JSON that it should be.
pub(crate) fn parsed(text: String, format: OutputFormat, what: &str) -> Result<StepOutput, CallFailure> {
    match format {
        OutputFormat::Text => Ok(StepOutput::of_text(text)),
        OutputFormat::Json => match serde_json::from_str::<Value>(&text) {
            Ok(json) => Ok(StepOutput { text, json: Some(json) }),
            Err(error) => {
                let message = format!("{what} is not JSON: {error}; it begins with {:?}", beginning(&text));
                Err(CallFailure::new(FailureKind::Schema, message))
            }
        },
    }
}

/// Enough of a text to recognise it.
pub(crate) fn beginning(text: &str) -> String {
    const LENGTH: usize = 200;
    let mut letters = text.trim().chars();
    let mut shown: String = letters.by_ref().take(LENGTH).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}
