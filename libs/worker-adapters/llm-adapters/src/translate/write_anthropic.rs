//! Writing Anthropic's messages.

use serde_json::{Value, json};

use super::About;
use super::answer::{AnswerFault, Writer};
use super::delta::{Counts, Delta, Finish, ToolPiece};
use super::tool_calls::ToolCalls;

#[derive(Debug)]
pub(super) struct AnthropicWriter {
    about: About,
    begun: bool,
    open: Option<Block>,
    /// How many blocks have begun.
    blocks: usize,
    counts: Counts,
    finish: Option<Finish>,
}

/// What the open block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    /// The call of a tool, by its number in the answer.
    Tool(usize),
}

impl AnthropicWriter {
    pub(super) fn new(about: &About) -> Self {
        let (about, counts) = (about.clone(), Counts::default());
        Self { about, begun: false, open: None, blocks: 0, counts, finish: None }
    }

    fn message(&self, content: &[Value], stop_reason: Option<&str>, usage: &Value) -> Value {
        json!({
            "id": format!("msg_{}", self.about.request_id),
            "type": "message",
            "role": "assistant",
            "model": self.about.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            // Nothing is counted yet; the last event but one tells.
            let usage = json!({"input_tokens": 0, "output_tokens": 0});
            let message = self.message(&[], None, &usage);
            write_event(out, "message_start", json!({"message": message}));
        }
    }

    /// Sees to it that the open block is of this kind.
    fn open(&mut self, block: Block, content: &Value, out: &mut Vec<u8>) {
        if self.open != Some(block) {
            self.close(out);
            write_event(out, "content_block_start", json!({"index": self.blocks, "content_block": content}));
            self.open = Some(block);
            self.blocks += 1;
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            write_event(out, "content_block_stop", json!({"index": self.blocks - 1}));
        }
    }

    fn change(&self, delta: &Value, out: &mut Vec<u8>) {
        write_event(out, "content_block_delta", json!({"index": self.blocks - 1, "delta": delta}));
    }

    fn tool(&mut self, piece: ToolPiece, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        let block = Block::Tool(piece.index);
        if self.open != Some(block) {
            let Some(name) = piece.name else {
                return Err(AnswerFault::Malformed("a tool call that goes on without having begun"));
            };
            let id = piece.id.unwrap_or_else(|| self.tool_id(piece.index));
            self.open(block, &json!({"type": "tool_use", "id": id, "name": name, "input": {}}), out);
        }
        if !piece.arguments.is_empty() {
            self.change(&json!({"type": "input_json_delta", "partial_json": piece.arguments}), out);
        }
        Ok(())
    }

    fn tool_id(&self, index: usize) -> String {
        format!("toolu_{}_{index}", self.about.request_id)
    }

    fn stop_reason(&self) -> &'static str {
        match self.finish {
            None | Some(Finish::Stop) => "end_turn",
            Some(Finish::Length) => "max_tokens",
            Some(Finish::ToolCalls) => "tool_use",
            Some(Finish::Filtered) => "refusal",
        }
    }

    fn usage(&self) -> Value {
        let cached = self.counts.cached.unwrap_or_default();
        json!({
            "input_tokens": self.counts.prompt.unwrap_or_default().saturating_sub(cached),
            "cache_read_input_tokens": cached,
            "output_tokens": self.counts.completion.unwrap_or_default(),
        })
    }
}

impl Writer for AnthropicWriter {
    fn piece(&mut self, delta: Delta, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        self.counts.learn(&delta.counts);
        self.finish = delta.finish.or(self.finish);
        self.begin(out);
        if !delta.thinking.is_empty() {
            self.open(Block::Thinking, &json!({"type": "thinking", "thinking": "", "signature": ""}), out);
            self.change(&json!({"type": "thinking_delta", "thinking": delta.thinking}), out);
        }
        if !delta.text.is_empty() {
            self.open(Block::Text, &json!({"type": "text", "text": ""}), out);
            self.change(&json!({"type": "text_delta", "text": delta.text}), out);
        }
        delta.tools.into_iter().try_for_each(|piece| self.tool(piece, out))
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        self.close(out);
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        write_event(out, "message_delta", json!({"delta": delta, "usage": self.usage()}));
        write_event(out, "message_stop", json!({}));
        Ok(())
    }

    fn whole(&mut self, delta: Delta) -> Result<Value, AnswerFault> {
        self.counts.learn(&delta.counts);
        self.finish = delta.finish;
        let mut content = Vec::new();
        if !delta.thinking.is_empty() {
            content.push(json!({"type": "thinking", "thinking": delta.thinking, "signature": ""}));
        }
        if !delta.text.is_empty() {
            content.push(json!({"type": "text", "text": delta.text}));
        }
        let mut calls = ToolCalls::default();
        for piece in delta.tools {
            calls.add(piece)?;
        }
        for (index, call) in calls.take().into_iter().enumerate() {
            match call.object() {
                Some(input) => {
                    let id = call.id.unwrap_or_else(|| self.tool_id(index));
                    content.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": input}));
                }
                // Cut off at the token limit; `stop_reason` says so.
                None if self.finish == Some(Finish::Length) => {}
                None => return Err(AnswerFault::Malformed("arguments of a tool that are no JSON object")),
            }
        }
        Ok(self.message(&content, Some(self.stop_reason()), &self.usage()))
    }
}

/// An event repeats its name as its `type`.
fn write_event(out: &mut Vec<u8>, name: &str, mut fields: Value) {
    let mut event = json!({"type": name});
    if let (Some(event), Some(fields)) = (event.as_object_mut(), fields.as_object_mut()) {
        event.append(fields);
    }
    out.extend_from_slice(format!("event: {name}\ndata: {event}\n\n").as_bytes());
}
