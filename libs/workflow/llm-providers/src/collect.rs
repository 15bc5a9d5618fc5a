//! An answer, put together from what its events add.

use std::sync::Arc;
use std::time::Duration;

use llm_adapters::{AnswerFault, Counts, Delta, Finish, ToolCall, ToolCalls, ToolPiece};
use serde_json::{Value, json};
use tokio::time::Instant;
use workflow::{Answer, AnswerPiece, FinishReason, TokenUse};

use crate::dialect::AnswerTool;

/// The longest text of an answer.
pub(crate) const TEXT_LIMIT: usize = 64 * 1024 * 1024;

/// What came so far.
pub(crate) struct Collector {
    pieces: Arc<dyn AnswerPiece>,
    began: Instant,
    first_token: Option<Duration>,
    text: String,
    tools: ToolCalls,
    answer_tool: Option<AnswerTool>,
    /// Which of the calls is the answer.
    answer_call: Option<usize>,
    finish: Option<Finish>,
    counts: Counts,
}

impl Collector {
    pub(crate) fn new(pieces: Arc<dyn AnswerPiece>, began: Instant, answer_tool: Option<AnswerTool>) -> Self {
        Self {
            pieces,
            began,
            first_token: None,
            text: String::new(),
            tools: ToolCalls::default(),
            answer_tool,
            answer_call: None,
            finish: None,
            counts: Counts::default(),
        }
    }

    pub(crate) fn add(&mut self, delta: Delta) -> Result<(), AnswerFault> {
        let says_something = !delta.text.is_empty() || !delta.thinking.is_empty() || !delta.tools.is_empty();
        if says_something && self.first_token.is_none() {
            self.first_token = Some(self.began.elapsed());
        }
        self.counts.learn(&delta.counts);
        self.finish = delta.finish.or(self.finish);
        self.say(&delta.text)?;
        delta.tools.into_iter().try_for_each(|piece| self.tool(piece))
    }

    /// Tokens that an answer has cost which came to no good end.
    pub(crate) fn usage(&self) -> TokenUse {
        TokenUse {
            prompt: self.counts.prompt.unwrap_or_default(),
            completion: self.counts.completion.unwrap_or_default(),
            cached: self.counts.cached.unwrap_or_default(),
        }
    }

    fn say(&mut self, text: &str) -> Result<(), AnswerFault> {
        if text.is_empty() {
            return Ok(());
        }
        if self.text.len() + text.len() > TEXT_LIMIT {
            return Err(AnswerFault::TooLong);
        }
        self.text.push_str(text);
        // An answer inside an envelope is told when it has been taken out.
        if self.answer_tool.is_none_or(|tool| tool.member.is_none()) {
            self.pieces.piece(text);
        }
        Ok(())
    }

    fn tool(&mut self, piece: ToolPiece) -> Result<(), AnswerFault> {
        if self.answer_tool.is_some_and(|tool| piece.name.as_deref() == Some(tool.name)) {
            self.answer_call = Some(piece.index);
            // Words before the call are not the answer.
            self.text.clear();
        }
        if self.answer_call == Some(piece.index) {
            return self.say(&piece.arguments);
        }
        self.tools.add(piece)
    }

    pub(crate) fn answer(mut self) -> Answer {
        let calls: Vec<ToolCall> =
            self.tools.take().into_iter().filter(|call| !call.name.is_empty()).collect();
        self.take_out_of_its_envelope();
        let finish = match self.finish {
            Some(Finish::Length) => FinishReason::Length,
            Some(Finish::Filtered) => FinishReason::Refused,
            Some(Finish::ToolCalls) if self.answer_call.is_none() => FinishReason::ToolCalls,
            _ if !calls.is_empty() => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        Answer {
            finish,
            usage: self.usage(),
            first_token: self.first_token,
            tool_calls: (!calls.is_empty()).then(|| calls.iter().enumerate().map(openai_call).collect()),
            text: self.text,
        }
    }

    /// An answer that is no object came as the member of one.
    fn take_out_of_its_envelope(&mut self) {
        let Some(member) = self.answer_tool.and_then(|tool| tool.member) else { return };
        let envelope = serde_json::from_str(&self.text).ok();
        if let Some(answer) =
            envelope.and_then(|mut envelope: Value| envelope.get_mut(member).map(Value::take))
        {
            self.text = answer.to_string();
        }
        self.pieces.piece(&self.text);
    }
}

fn openai_call((place, call): (usize, &ToolCall)) -> Value {
    let id = call.id.clone().unwrap_or_else(|| format!("call_{place}"));
    let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
    json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}
