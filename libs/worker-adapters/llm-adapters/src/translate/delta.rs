//! A piece of an answer in no dialect.

use serde_json::Value;

/// What one event of a stream adds to an answer; a whole answer is one large piece.
#[derive(Debug, Default)]
pub struct Delta {
    pub text: String,
    /// What the model thinks before it answers.
    pub thinking: String,
    pub tools: Vec<ToolPiece>,
    /// Why the model stopped, in the piece that says it.
    pub finish: Option<Finish>,
    pub counts: Counts,
}

/// A part of a call of a tool.
#[derive(Debug, Default)]
pub struct ToolPiece {
    /// Which of the answer's calls this belongs to, from 0.
    pub index: usize,
    /// Only in the first piece of a call, like the name.
    pub id: Option<String>,
    pub name: Option<String>,
    /// More of the arguments, as JSON text.
    pub arguments: String,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It was done, or wrote a stop sequence.
    Stop,
    Length,
    ToolCalls,
    /// A provider's policy.
    Filtered,
}

/// Tokens and times as the other side counted them. Absent is unknown, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// All tokens of the prompt, those from a cache included.
    pub prompt: Option<u64>,
    pub completion: Option<u64>,
    pub cached: Option<u64>,
    pub prompt_ms: Option<f64>,
    pub decode_ms: Option<f64>,
}

impl Counts {
    /// Takes over what `later` knows.
    pub fn learn(&mut self, later: &Counts) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
        self.prompt_ms = later.prompt_ms.or(self.prompt_ms);
        self.decode_ms = later.decode_ms.or(self.decode_ms);
    }
}

/// The text in a value that may be text; anything else holds none.
pub(super) fn text_in(value: &mut Value) -> String {
    match value.take() {
        Value::String(text) => text,
        _ => String::new(),
    }
}
