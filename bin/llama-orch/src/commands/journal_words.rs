//! Events of a job as lines: which are asked for, and how people read them.

use std::fmt::Write as _;

use serde_json::Value;
use workflow::JournalLine;

use crate::arguments::TailArguments;
use crate::context::Context;

/// Of one value of an event, for people.
const LONGEST_VALUE: usize = 100;

pub(super) fn is_wanted(arguments: &TailArguments, line: &JournalLine) -> bool {
    let of_type = arguments.event_type.is_none_or(|wanted| line.kind == Some(wanted));
    let of_level = arguments.level.is_none_or(|least| line.level >= least);
    let of_step = match (&arguments.step, &line.step) {
        (None, _) => true,
        (Some(wanted), Some(step)) => is_within(step, wanted),
        (Some(_), None) => false,
    };
    of_type && of_level && of_step
}

/// A step itself, or one that it was expanded to: `name[0]`, `name#1`, `name/2/body`.
fn is_within(step: &str, wanted: &str) -> bool {
    step.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '#', '/']))
}

/// One event as a line: as it stands in the journal for programs, in words for people.
pub(super) fn shown(context: &Context, line: &JournalLine) -> String {
    if context.printer.json() { line.text.clone() } else { in_words(line) }
}

fn in_words(line: &JournalLine) -> String {
    let event: Value = serde_json::from_str(&line.text).unwrap_or_default();
    let word = |name: &str| event[name].as_str().unwrap_or_default();
    let mut text = format!("{}  {:5}  {:16}", word("ts"), line.level, word("type"));
    if let Some(step) = &line.step {
        text.push_str("  ");
        text.push_str(step);
    }
    if let Some(attempt) = event["attempt"].as_u64().filter(|attempt| *attempt > 1) {
        let _ = write!(text, " (attempt {attempt})");
    }
    for (name, value) in event["data"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
    {
        let _ = write!(text, "  {name}={}", in_short(value));
    }
    text.replace(char::is_control, "?")
}

/// A value on its line, shortened.
fn in_short(value: &Value) -> String {
    let text = match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.clone(),
        value => value.to_string(),
    };
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shown_with_what_it_was_expanded_to() {
        for step in ["read", "read[0]", "read#2", "read/1/body", "read[0]#1"] {
            assert!(is_within(step, "read"), "{step}");
        }
        for step in ["reader", "rea", "x/read"] {
            assert!(!is_within(step, "read"), "{step}");
        }
    }

    #[test]
    fn long_values_are_shortened_and_nothing_steers_the_terminal() {
        let long = "x".repeat(500);
        let line = JournalLine {
            seq: 1,
            level: workflow::Level::Warn,
            kind: None,
            step: Some("a\u{1b}[2J".to_owned()),
            text: serde_json::json!({"ts": "t", "type": "step.retrying", "attempt": 2,
                "data": {"message": long, "kind": "connect", "nothing": null}})
            .to_string(),
        };
        let expected = format!(
            "t  WARN   step.retrying     a?[2J (attempt 2)  message={}…  kind=connect",
            "x".repeat(100)
        );
        assert_eq!(in_words(&line), expected);
    }
}
