//! What the fake provider does with a request: a script that can be changed while it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How to answer. Without rules every prompt is answered with its hash and itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// From the request's last byte to the answer's first.
    pub latency_ms: u64,
    /// Between two pieces of a stream.
    pub piece_ms: u64,
    /// Into how many pieces a text is cut.
    pub pieces: usize,
    /// The most bytes that are written at once; 0: as many as there are. Small numbers cut characters in two.
    pub split_bytes: usize,
    /// Where set, requests that do not show it are answered with 401.
    pub key: Option<String>,
    /// What the lists of models hold.
    pub models: Vec<String>,
    /// On every answer.
    pub headers: BTreeMap<String, String>,
    /// The first that fits decides.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            piece_ms: 0,
            pieces: 4,
            split_bytes: 0,
            key: None,
            models: vec!["fake".to_owned()],
            headers: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl Script {
    /// Every answer takes this long.
    pub fn latency(milliseconds: u64) -> Self {
        Self { latency_ms: milliseconds, ..Self::default() }
    }

    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// The answer to prompts that contain `part`.
    #[must_use]
    pub fn answer(self, part: &str, text: &str) -> Self {
        self.rule(Rule { text: Some(text.to_owned()), ..Rule::on(part) })
    }

    /// What goes wrong with prompts that contain `part`, so many times.
    #[must_use]
    pub fn fault(self, part: &str, fault: Fault, times: u64) -> Self {
        self.rule(Rule { fault: Some(fault), times: Some(times), ..Rule::on(part) })
    }
}

/// What to do with some of the requests. What it leaves out is as the script says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Part of the prompt (all messages of the request); empty fits all.
    pub contains: String,
    pub model: Option<String>,
    /// The beginning of the path.
    pub path: Option<String>,
    /// How often it fits, then never again.
    pub times: Option<u64>,
    /// `{prompt}`, `{hash}` and `{count}` (how often this prompt came, from 1) are filled in.
    pub text: Option<String>,
    /// What the model thinks before it answers.
    pub thinking: Option<String>,
    /// Calls of tools: `[{"name": …, "arguments": {…}}]`.
    pub tool_calls: Vec<ToolCall>,
    /// OpenAI's word for why the model stopped.
    pub finish: Option<String>,
    pub latency_ms: Option<u64>,
    pub piece_ms: Option<u64>,
    pub headers: BTreeMap<String, String>,
    pub fault: Option<Fault>,
}

impl Rule {
    /// A rule for prompts that contain `part`.
    pub fn on(part: &str) -> Self {
        Self { contains: part.to_owned(), ..Self::default() }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    pub name: String,
    pub arguments: Value,
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The connection is closed without a word.
    Refuse,
    /// No answer ever comes.
    Hang,
    /// The stream stops after its first half, and stays open.
    Stall,
    /// The pieces of the answer come with pauses.
    Slow { piece_ms: u64 },
    /// Another status than 200.
    Status {
        status: u16,
        #[serde(default)]
        retry_after: Option<String>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Without one, the error is told in the dialect's shape.
        #[serde(default)]
        body: Option<Value>,
    },
    /// The answer is no JSON.
    Garbage,
    /// A web page instead of an answer, with status 200.
    Page,
    /// The connection breaks after the first half of the answer.
    Cut,
    /// The stream ends well after its first half, as HTTP sees it.
    End,
    /// The first half of the answer, then an error in the stream.
    Error { error_type: String, message: String },
    /// One line that never ends.
    Endless,
}
