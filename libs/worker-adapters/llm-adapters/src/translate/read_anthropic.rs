//! Reading Anthropic's messages.

use serde_json::Value;

use super::answer::{AnswerFault, Reader, parsed};
use super::delta::{Counts, Delta, Finish, ToolPiece, text_in};
use super::event_reader::Event;
use super::read_openai::said;

#[derive(Debug, Default)]
pub struct AnthropicReader {
    finished: bool,
    /// Calls of tools that have begun; the last one is open.
    tools: usize,
    /// Anthropic counts the cache apart; a later event tells only what is new.
    usage: Usage,
}

#[derive(Debug, Default)]
struct Usage {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    output: Option<u64>,
}

impl Reader for AnthropicReader {
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault> {
        let mut body = parsed(&event.data)?;
        let kind = body.get_mut("type").map(text_in).unwrap_or_default();
        let mut delta = Delta::default();
        match kind.as_str() {
            "message_start" => delta.counts = self.counts(&body["message"]["usage"]),
            "content_block_start" => {
                if let Some(block) = body.get_mut("content_block") {
                    self.block(block, &mut delta)?;
                }
            }
            "content_block_delta" => {
                if let Some(change) = body.get_mut("delta") {
                    self.change(change, &mut delta)?;
                }
            }
            "message_delta" => {
                delta.finish = finish(&body["delta"]["stop_reason"]);
                delta.counts = self.counts(&body["usage"]);
                self.finished |= delta.finish.is_some();
            }
            "message_stop" if self.finished => return Ok(None),
            "message_stop" => return Err(AnswerFault::Incomplete),
            "error" => return Err(AnswerFault::BrokenOff(said(&body["error"]))),
            // Kinds of tomorrow are to be passed over.
            "" => return Err(AnswerFault::Malformed("an event without a type")),
            _ => {}
        }
        Ok(Some(delta))
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn whole(&mut self, mut body: Value) -> Result<Delta, AnswerFault> {
        let mut delta = Delta { counts: self.counts(&body["usage"]), ..Delta::default() };
        delta.finish = finish(&body["stop_reason"]);
        let Some(Value::Array(blocks)) = body.get_mut("content").map(Value::take) else {
            return Err(AnswerFault::Malformed("no content"));
        };
        if delta.finish.is_none() {
            return Err(AnswerFault::Malformed("it does not say why it ended"));
        }
        for mut block in blocks {
            self.block(&mut block, &mut delta)?;
        }
        Ok(delta)
    }
}

impl AnthropicReader {
    /// A block at its beginning, or all of it in an answer that is not streamed.
    fn block(&mut self, block: &mut Value, delta: &mut Delta) -> Result<(), AnswerFault> {
        match block["type"].as_str() {
            Some("text") => delta.text.push_str(&text_in(&mut block["text"])),
            Some("thinking") => delta.thinking.push_str(&text_in(&mut block["thinking"])),
            Some("tool_use") => {
                let input = &block["input"];
                let whole = input.as_object().is_some_and(|input| !input.is_empty());
                let arguments = if whole { input.to_string() } else { String::new() };
                let index = self.tools;
                self.tools += 1;
                let (id, name) = (text_in(&mut block["id"]), text_in(&mut block["name"]));
                delta.tools.push(ToolPiece { index, id: Some(id), name: Some(name), arguments });
            }
            Some(_) => {}
            None => return Err(AnswerFault::Malformed("a block without a type")),
        }
        Ok(())
    }

    fn change(&mut self, change: &mut Value, delta: &mut Delta) -> Result<(), AnswerFault> {
        match change["type"].as_str() {
            Some("text_delta") => delta.text = text_in(&mut change["text"]),
            Some("thinking_delta") => delta.thinking = text_in(&mut change["thinking"]),
            Some("input_json_delta") => {
                let no_tool = AnswerFault::Malformed("arguments of a tool that was not called");
                let index = self.tools.checked_sub(1).ok_or(no_tool)?;
                let arguments = text_in(&mut change["partial_json"]);
                delta.tools.push(ToolPiece { index, arguments, ..ToolPiece::default() });
            }
            _ => {}
        }
        Ok(())
    }

    fn counts(&mut self, told: &Value) -> Counts {
        let usage = &mut self.usage;
        for (key, count) in [
            ("input_tokens", &mut usage.input),
            ("cache_read_input_tokens", &mut usage.cache_read),
            ("cache_creation_input_tokens", &mut usage.cache_written),
            ("output_tokens", &mut usage.output),
        ] {
            *count = told[key].as_u64().or(*count);
        }
        let cached =
            usage.cache_read.unwrap_or_default().saturating_add(usage.cache_written.unwrap_or_default());
        Counts {
            prompt: usage.input.map(|input| input.saturating_add(cached)),
            completion: usage.output,
            cached: usage.cache_read,
            ..Counts::default()
        }
    }
}

fn finish(reason: &Value) -> Option<Finish> {
    Some(match reason.as_str()? {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Filtered,
        _ => Finish::Stop,
    })
}
