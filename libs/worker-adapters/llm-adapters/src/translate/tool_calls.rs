//! Calls of tools, put together from their pieces.

use serde_json::Value;

use super::answer::AnswerFault;
use super::delta::ToolPiece;

/// No model calls more tools at once, and no call needs more text.
const CALLS_LIMIT: usize = 256;
const ARGUMENTS_LIMIT: usize = 8 * 1024 * 1024;

/// The calls of one answer.
#[derive(Debug, Default)]
pub struct ToolCalls {
    calls: Vec<ToolCall>,
    length: usize,
}

#[derive(Debug, Default)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    /// JSON text; empty means no arguments.
    pub arguments: String,
}

impl ToolCalls {
    pub fn add(&mut self, piece: ToolPiece) -> Result<(), AnswerFault> {
        self.length = self.length.saturating_add(piece.arguments.len());
        if piece.index >= CALLS_LIMIT || self.length > ARGUMENTS_LIMIT {
            return Err(AnswerFault::TooLong);
        }
        if self.calls.len() <= piece.index {
            self.calls.resize_with(piece.index + 1, ToolCall::default);
        }
        let call = &mut self.calls[piece.index];
        call.id = piece.id.or(call.id.take());
        if let Some(name) = piece.name {
            call.name = name;
        }
        call.arguments.push_str(&piece.arguments);
        Ok(())
    }

    pub fn take(&mut self) -> Vec<ToolCall> {
        self.length = 0;
        std::mem::take(&mut self.calls)
    }
}

impl ToolCall {
    /// The arguments as an object; nothing where the text is no whole object.
    pub fn object(&self) -> Option<Value> {
        if self.arguments.trim().is_empty() {
            return Some(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_str(&self.arguments).ok().filter(Value::is_object)
    }
}
