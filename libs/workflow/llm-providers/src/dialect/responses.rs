//! OpenAI's responses.

use llm_adapters::{AnswerFault, AnswerReader, Counts, Delta, Event, Finish, ToolPiece};
use serde_json::{Value, json};
use workflow::{CallFailure, ModelRequest};
use workflow_spec::FailureKind;

use super::strict::can_be_strict;
use super::{Plan, messages, options};
use crate::framing::Framing;
use crate::setting::ProviderKind;

pub(super) fn plan(kind: ProviderKind, request: &ModelRequest) -> Result<Plan, CallFailure> {
    let mut body = options(request);
    for older in ["max_tokens", "max_completion_tokens"] {
        if let Some(limit) = body.remove(older) {
            body.entry("max_output_tokens").or_insert(limit);
        }
    }
    if let Some(effort) = body.remove("reasoning_effort") {
        body.entry("reasoning").or_insert(json!({"effort": effort}));
    }
    if let Some(tools) = &request.tools {
        body.insert("tools".to_owned(), flat_tools(tools)?);
    }
    if let Some(schema) = &request.schema {
        let format = json!({"type": "json_schema", "name": "answer", "schema": **schema,
            "strict": can_be_strict(schema)});
        if kind != ProviderKind::OpenAi {
            // llama-server enforces schemas here only in the words of a chat. Whoever minds is told in words.
            let words = json!({"type": "json_schema", "json_schema": {"schema": **schema}});
            body.insert("response_format".to_owned(), words);
        }
        body.insert("text".to_owned(), json!({"format": format}));
    }
    let limit = body.get("max_output_tokens").and_then(Value::as_u64);
    body.insert("model".to_owned(), request.model.as_str().into());
    body.insert("input".to_owned(), messages(request));
    body.insert("stream".to_owned(), true.into());
    if kind == ProviderKind::OpenAi {
        // What a workflow asks is kept here, and need not be kept there.
        body.entry("store").or_insert(false.into());
    }
    Ok(Plan {
        path: "/v1/responses",
        body,
        framing: Framing::ServerSentEvents,
        reader: Box::new(ResponsesReader { limit, ..ResponsesReader::default() }),
        answer_tool: None,
    })
}

/// Functions are one level flatter here than in chats.
fn flat_tools(tools: &Value) -> Result<Value, CallFailure> {
    let tools = tools
        .as_array()
        .ok_or_else(|| CallFailure::new(FailureKind::Validation, "`tools` must be a list of functions"))?;
    let flat = |tool: &Value| match tool["function"].as_object() {
        Some(function) => {
            let mut flat = function.clone();
            flat.insert("type".to_owned(), "function".into());
            Value::Object(flat)
        }
        // The provider's own tools have no function.
        None => tool.clone(),
    };
    Ok(tools.iter().map(flat).collect())
}

#[derive(Debug, Default)]
struct ResponsesReader {
    finished: bool,
    /// Calls of tools so far.
    tools: usize,
    refused: bool,
    /// The most tokens that were asked for.
    limit: Option<u64>,
}

impl AnswerReader for ResponsesReader {
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault> {
        // Some servers end as they end a chat.
        if event.data.trim_ascii() == b"[DONE]" {
            return if self.finished { Ok(None) } else { Err(AnswerFault::Incomplete) };
        }
        let body: Value =
            serde_json::from_slice(&event.data).map_err(|_| AnswerFault::Malformed("no valid JSON"))?;
        let mut delta = Delta::default();
        match body["type"].as_str() {
            Some("response.output_text.delta") => delta.text = text(&body["delta"]),
            Some("response.reasoning_text.delta" | "response.reasoning_summary_text.delta") => {
                delta.thinking = text(&body["delta"]);
            }
            Some("response.refusal.delta") => self.refused = true,
            Some("response.output_item.done") => self.item(&body["item"], &mut delta),
            Some("response.completed" | "response.incomplete") => self.end(&body["response"], &mut delta),
            Some("response.cancelled") => return Err(AnswerFault::Incomplete),
            // Kinds of tomorrow are to be passed over.
            Some(_) => {}
            None => return Err(AnswerFault::Malformed("an event without a type")),
        }
        Ok(Some(delta))
    }

    fn is_complete(&self) -> bool {
        self.finished
    }

    fn whole(&mut self, body: Value) -> Result<Delta, AnswerFault> {
        let Some(output) = body["output"].as_array() else {
            return Err(AnswerFault::Malformed("no output"));
        };
        let mut delta = Delta::default();
        for item in output {
            self.item(item, &mut delta);
            for part in item["content"].as_array().into_iter().flatten() {
                match part["type"].as_str() {
                    Some("output_text") => delta.text.push_str(&text(&part["text"])),
                    Some("refusal") => self.refused = true,
                    _ => {}
                }
            }
        }
        self.end(&body, &mut delta);
        Ok(delta)
    }
}

impl ResponsesReader {
    /// A finished part of the answer; only calls of tools are news, text has come before.
    fn item(&mut self, item: &Value, delta: &mut Delta) {
        if item["type"] != "function_call" {
            return;
        }
        let id = item["call_id"].as_str().or(item["id"].as_str()).map(str::to_owned);
        let (name, arguments) = (item["name"].as_str().map(str::to_owned), text(&item["arguments"]));
        delta.tools.push(ToolPiece { index: self.tools, id, name, arguments });
        self.tools += 1;
    }

    fn end(&mut self, response: &Value, delta: &mut Delta) {
        self.finished = true;
        let usage = &response["usage"];
        delta.counts = Counts {
            prompt: usage["input_tokens"].as_u64(),
            completion: usage["output_tokens"].as_u64(),
            cached: usage["input_tokens_details"]["cached_tokens"].as_u64(),
            ..Counts::default()
        };
        delta.finish = Some(match response["incomplete_details"]["reason"].as_str() {
            Some("content_filter") => Finish::Filtered,
            Some(_) => Finish::Length,
            None if self.refused => Finish::Filtered,
            None if self.tools > 0 => Finish::ToolCalls,
            // llama-server says of an answer that the limit cut that it is complete.
            None if self.limit.is_some() && delta.counts.completion >= self.limit => Finish::Length,
            None => Finish::Stop,
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
