//! Ollama's own chat.

use llm_adapters::{AnswerFault, AnswerReader, Counts, Delta, Event, Finish, ToolPiece};
use serde_json::{Value, json};
use workflow::{CallFailure, ModelRequest};
use workflow_spec::FailureKind;

use super::{Object, Plan, messages, options};
use crate::framing::Framing;

/// Members of the request itself; everything else is an option of the model.
const OWN_MEMBERS: [&str; 6] = ["think", "keep_alive", "format", "logprobs", "top_logprobs", "truncate"];
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

pub(super) fn plan(request: &ModelRequest) -> Result<Plan, CallFailure> {
    let mut options = options(request);
    let mut body = Object::new();
    for member in OWN_MEMBERS {
        if let Some(value) = options.remove(member) {
            body.insert(member.to_owned(), value);
        }
    }
    for limit in LIMITS {
        if let Some(value) = options.remove(limit) {
            options.entry("num_predict").or_insert(value);
        }
    }
    if let Some(Value::String(stop)) = options.get("stop") {
        let stops = json!([stop]);
        options.insert("stop".to_owned(), stops);
    }
    if let Some(effort) = options.remove("reasoning_effort") {
        let thinks = if effort == "none" { json!(false) } else { effort };
        body.entry("think").or_insert(thinks);
    }
    if let Some(format) = options.remove("response_format") {
        body.entry("format").or_insert(format_of(&format)?);
    }
    if let Some(tools) = &request.tools {
        body.insert("tools".to_owned(), tools.clone());
    }
    if let Some(schema) = &request.schema {
        body.insert("format".to_owned(), (**schema).clone());
    }
    body.insert("model".to_owned(), request.model.as_str().into());
    body.insert("messages".to_owned(), messages(request));
    body.insert("stream".to_owned(), true.into());
    if !options.is_empty() {
        body.insert("options".to_owned(), options.into());
    }
    Ok(Plan {
        path: "/api/chat",
        body,
        framing: Framing::Lines,
        reader: Box::new(OllamaReader::default()),
        answer_tool: None,
    })
}

/// OpenAI's `response_format` as Ollama's `format`.
fn format_of(format: &Value) -> Result<Value, CallFailure> {
    match format["type"].as_str() {
        Some("json_object") => Ok("json".into()),
        Some("json_schema") => Ok(format["json_schema"]["schema"].clone()),
        Some("text") => Ok("".into()),
        _ => Err(CallFailure::new(FailureKind::Validation, "`response_format` cannot be told to Ollama")),
    }
}

#[derive(Debug, Default)]
struct OllamaReader {
    done: bool,
    /// Calls of tools so far.
    tools: usize,
}

impl AnswerReader for OllamaReader {
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault> {
        let body =
            serde_json::from_slice(&event.data).map_err(|_| AnswerFault::Malformed("no valid JSON"))?;
        self.read(&body).map(Some)
    }

    fn is_complete(&self) -> bool {
        self.done
    }

    fn whole(&mut self, body: Value) -> Result<Delta, AnswerFault> {
        let delta = self.read(&body)?;
        if self.done { Ok(delta) } else { Err(AnswerFault::Incomplete) }
    }
}

impl OllamaReader {
    fn read(&mut self, body: &Value) -> Result<Delta, AnswerFault> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let Some(done) = body["done"].as_bool() else {
            return Err(AnswerFault::Malformed("it does not say whether it is done"));
        };
        let message = &body["message"];
        let mut delta = Delta {
            text: text(&message["content"]),
            thinking: text(&message["thinking"]),
            ..Delta::default()
        };
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            delta.tools.push(tool_piece(self.tools, call));
            self.tools += 1;
        }
        if done {
            self.done = true;
            delta.counts = Counts {
                prompt: body["prompt_eval_count"].as_u64(),
                completion: body["eval_count"].as_u64(),
                ..Counts::default()
            };
            delta.finish = Some(match body["done_reason"].as_str() {
                Some("length") => Finish::Length,
                _ if self.tools > 0 => Finish::ToolCalls,
                _ => Finish::Stop,
            });
        }
        Ok(delta)
    }
}

/// Ollama tells calls whole, mostly without ids.
fn tool_piece(index: usize, call: &Value) -> ToolPiece {
    let id = call["id"].as_str().map_or_else(|| format!("call_{index}"), str::to_owned);
    let name = call["function"]["name"].as_str().map(str::to_owned);
    let arguments = match &call["function"]["arguments"] {
        Value::Null => "{}".to_owned(),
        Value::String(text) => text.clone(),
        arguments => arguments.to_string(),
    };
    ToolPiece { index, id: Some(id), name, arguments }
}
