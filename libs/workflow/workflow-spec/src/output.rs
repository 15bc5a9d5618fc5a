//! What a step leaves behind for the steps after it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A step's result. `text` is always there; `json` where the step speaks JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepOutput {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
}

impl StepOutput {
    pub fn of_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), json: None }
    }

    /// A JSON value; a string is its own text, anything else is shown as compact JSON.
    pub fn of_json(value: Value) -> Self {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        Self { text, json: Some(value) }
    }

    /// The first fenced block of the text without its fences; the whole text where there is none. A fence that
    /// is never closed ends with the text.
    pub fn code(&self) -> &str {
        fenced(&self.text).unwrap_or(&self.text)
    }
}

fn fenced(text: &str) -> Option<&str> {
    let (fence_at, fence) = opening_fence(text)?;
    let body_at = fence_at + text[fence_at..].find('\n')? + 1;
    let body = &text[body_at..];
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        let bare = line.trim();
        if bare.len() >= fence.len() && bare.bytes().all(|byte| byte == fence.as_bytes()[0]) {
            return Some(&body[..end]);
        }
        end += line.len();
    }
    Some(body)
}

/// Where the first line that opens a fence begins, and its run of fence characters.
fn opening_fence(text: &str) -> Option<(usize, &str)> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start();
        let length = bare.bytes().take_while(|byte| *byte == b'`').count();
        let length = length.max(bare.bytes().take_while(|byte| *byte == b'~').count());
        if length >= 3 {
            return Some((at, &bare[..length]));
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_the_first_fenced_block() {
        let output = StepOutput::of_text("Here:\n```python\nprint(1)\n```\nand\n```\nno\n```\n");
        assert_eq!(output.code(), "print(1)\n");
    }

    #[test]
    fn a_longer_fence_may_hold_a_shorter_one() {
        let output = StepOutput::of_text("````md\n```\nx\n```\n````\n");
        assert_eq!(output.code(), "```\nx\n```\n");
    }

    #[test]
    fn without_a_fence_the_whole_text_is_code() {
        assert_eq!(StepOutput::of_text("print(1)").code(), "print(1)");
        assert_eq!(StepOutput::of_text("```sh\nls").code(), "ls");
    }
}
