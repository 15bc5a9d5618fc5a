//! An answer in the words of each dialect: as a stream's frames, and whole.

use serde_json::{Value, json};

use super::asked::{Asked, Speech};
use super::script::ToolCall;

/// What the model says.
pub(crate) struct Told {
    pub(crate) model: String,
    /// Cut into the pieces of a stream.
    pub(crate) pieces: Vec<String>,
    pub(crate) thinking: Option<String>,
    pub(crate) tool_calls: Vec<ToolCall>,
    /// OpenAI's word.
    pub(crate) finish: String,
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
}

impl Told {
    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}

const ID: &str = "fake-1";

/// An event of a stream as it goes over the wire.
fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// The frames of a stream; whoever stops in the middle has cut it.
pub(crate) fn frames(speech: Speech, asked: &Asked, told: &Told) -> Vec<String> {
    match speech {
        Speech::Chat => chat_frames(asked, told),
        Speech::Responses => responses_frames(told),
        Speech::Messages => messages_frames(asked, told),
        Speech::Ollama => ollama_frames(told),
    }
}

/// An answer that is not streamed.
pub(crate) fn whole(speech: Speech, asked: &Asked, told: &Told) -> Value {
    match speech {
        Speech::Chat => {
            let mut message = json!({"role": "assistant", "content": told.text()});
            if !told.tool_calls.is_empty() {
                message["tool_calls"] = chat_calls(told);
            }
            json!({"id": ID, "object": "chat.completion", "created": 1, "model": told.model,
                "choices": [{"index": 0, "message": message, "finish_reason": told.finish}],
                "usage": chat_usage(told)})
        }
        Speech::Responses => response(told, "completed"),
        Speech::Messages => json!({"id": ID, "type": "message", "role": "assistant", "model": told.model,
            "content": blocks(asked, told), "stop_reason": stop_reason(asked, told), "stop_sequence": null,
            "usage": {"input_tokens": told.prompt_tokens, "output_tokens": told.completion_tokens}}),
        Speech::Ollama => {
            let mut last = ollama_end(told);
            last["message"] = ollama_message(told, &told.text());
            last
        }
    }
}

/// An error in the dialect's shape.
pub(crate) fn error(speech: Option<Speech>, status: u16, kind: &str, message: &str) -> Value {
    match speech {
        Some(Speech::Messages) => json!({"type": "error", "error": {"type": kind, "message": message}}),
        Some(Speech::Ollama) => json!({"error": message}),
        _ => json!({"error": {"message": message, "type": kind, "param": null, "code": status.to_string()}}),
    }
}

/// An error in the middle of a stream.
pub(crate) fn error_frame(speech: Speech, kind: &str, message: &str) -> String {
    match speech {
        Speech::Chat => event(None, &json!({"error": {"message": message, "type": kind, "code": kind}})),
        Speech::Responses => {
            event(Some("error"), &json!({"type": "error", "code": kind, "message": message, "param": null}))
        }
        Speech::Messages => {
            event(Some("error"), &json!({"type": "error", "error": {"type": kind, "message": message}}))
        }
        Speech::Ollama => format!("{}\n", json!({"error": message})),
    }
}

fn chat_frames(asked: &Asked, told: &Told) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        json!({"id": ID, "object": "chat.completion.chunk", "created": 1, "model": told.model,
            "choices": [choice]})
    };
    let mut frames = vec![event(None, &chunk(json!({"role": "assistant", "content": null}), Value::Null))];
    if let Some(thinking) = &told.thinking {
        frames.push(event(None, &chunk(json!({"reasoning_content": thinking}), Value::Null)));
    }
    for piece in &told.pieces {
        frames.push(event(None, &chunk(json!({"content": piece}), Value::Null)));
    }
    for (index, call) in told.tool_calls.iter().enumerate() {
        let arguments = call.arguments.to_string();
        let begin = json!({"index": index, "id": format!("call_{index}"), "type": "function",
            "function": {"name": call.name, "arguments": ""}});
        frames.push(event(None, &chunk(json!({"tool_calls": [begin]}), Value::Null)));
        for half in halves(&arguments) {
            let more = json!({"index": index, "function": {"arguments": half}});
            frames.push(event(None, &chunk(json!({"tool_calls": [more]}), Value::Null)));
        }
    }
    frames.push(event(None, &chunk(json!({}), json!(told.finish))));
    if asked.include_usage {
        let mut last = chunk(Value::Null, Value::Null);
        last["choices"] = json!([]);
        last["usage"] = chat_usage(told);
        frames.push(event(None, &last));
    }
    frames.push("data: [DONE]\n\n".to_owned());
    frames
}

fn halves(text: &str) -> [&str; 2] {
    let middle = text.floor_char_boundary(text.len() / 2);
    let (head, tail) = text.split_at(middle);
    [head, tail]
}

fn chat_usage(told: &Told) -> Value {
    json!({"prompt_tokens": told.prompt_tokens, "completion_tokens": told.completion_tokens,
        "total_tokens": told.prompt_tokens + told.completion_tokens})
}

fn chat_calls(told: &Told) -> Value {
    let call = |(index, call): (usize, &ToolCall)| {
        json!({"id": format!("call_{index}"), "type": "function",
            "function": {"name": call.name, "arguments": call.arguments.to_string()}})
    };
    told.tool_calls.iter().enumerate().map(call).collect()
}

fn response(told: &Told, status: &str) -> Value {
    let content = json!([{"type": "output_text", "text": told.text(), "annotations": []}]);
    let mut output = vec![json!({"type": "message", "role": "assistant", "content": content})];
    for (index, call) in told.tool_calls.iter().enumerate() {
        output.push(response_call(index, call));
    }
    let cut = match told.finish.as_str() {
        "length" => json!({"reason": "max_output_tokens"}),
        "content_filter" => json!({"reason": "content_filter"}),
        _ => Value::Null,
    };
    let status = if cut.is_null() { status } else { "incomplete" };
    json!({"id": ID, "object": "response", "status": status, "model": told.model, "output": output,
        "incomplete_details": cut, "error": null,
        "usage": {"input_tokens": told.prompt_tokens, "output_tokens": told.completion_tokens}})
}

fn response_call(index: usize, call: &ToolCall) -> Value {
    json!({"type": "function_call", "id": format!("fc_{index}"), "call_id": format!("call_{index}"),
        "name": call.name, "arguments": call.arguments.to_string(), "status": "completed"})
}

fn responses_frames(told: &Told) -> Vec<String> {
    let typed = |mut body: Value, kind: &str| {
        body["type"] = json!(kind);
        event(Some(kind), &body)
    };
    let created = json!({"response": {"id": ID, "status": "in_progress", "model": told.model}});
    let mut frames = vec![typed(created, "response.created")];
    if let Some(thinking) = &told.thinking {
        frames.push(typed(json!({"delta": thinking}), "response.reasoning_text.delta"));
    }
    for piece in &told.pieces {
        frames.push(typed(json!({"output_index": 0, "delta": piece}), "response.output_text.delta"));
    }
    for (index, call) in told.tool_calls.iter().enumerate() {
        let item = json!({"output_index": index + 1, "item": response_call(index, call)});
        frames.push(typed(item, "response.output_item.done"));
    }
    let body = response(told, "completed");
    let kind = if body["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
    frames.push(typed(json!({"response": body}), kind));
    frames
}

fn stop_reason(asked: &Asked, told: &Told) -> &'static str {
    match told.finish.as_str() {
        "length" => "max_tokens",
        "content_filter" => "refusal",
        _ if asked.forced_tool.is_some() || !told.tool_calls.is_empty() => "tool_use",
        _ => "end_turn",
    }
}

/// The blocks of a message: its text, or the call of the tool that had to be called.
fn blocks(asked: &Asked, told: &Told) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some(thinking) = &told.thinking {
        blocks.push(json!({"type": "thinking", "thinking": thinking}));
    }
    let tool = |index: usize, name: &str, input: Value| json!({"type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": input});
    match &asked.forced_tool {
        Some(name) => {
            blocks.push(tool(0, name, serde_json::from_str(&told.text()).unwrap_or(json!(told.text()))));
        }
        None => blocks.push(json!({"type": "text", "text": told.text()})),
    }
    for (index, call) in told.tool_calls.iter().enumerate() {
        blocks.push(tool(index + 1, &call.name, call.arguments.clone()));
    }
    blocks
}

fn messages_frames(asked: &Asked, told: &Told) -> Vec<String> {
    let typed = |mut body: Value, kind: &str| {
        body["type"] = json!(kind);
        event(Some(kind), &body)
    };
    let usage = json!({"input_tokens": told.prompt_tokens, "output_tokens": 1});
    let start = json!({"message": {"id": ID, "type": "message", "role": "assistant", "model": told.model,
        "content": [], "stop_reason": null, "usage": usage}});
    let mut frames = vec![typed(start, "message_start")];
    for (index, mut block) in blocks(asked, told).into_iter().enumerate() {
        let deltas: Vec<Value> = match block["type"].as_str() {
            Some("tool_use") => {
                let input = block["input"].take().to_string();
                block["input"] = json!({});
                let forced = asked.forced_tool.as_deref() == block["name"].as_str();
                let pieces =
                    if forced { told.pieces.clone() } else { halves(&input).map(str::to_owned).into() };
                pieces
                    .into_iter()
                    .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                    .collect()
            }
            Some("thinking") => {
                let delta = json!({"type": "thinking_delta", "thinking": block["thinking"].take()});
                block["thinking"] = json!("");
                vec![delta]
            }
            _ => {
                block["text"] = json!("");
                told.pieces.iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect()
            }
        };
        frames.push(typed(json!({"index": index, "content_block": block}), "content_block_start"));
        for delta in deltas {
            frames.push(typed(json!({"index": index, "delta": delta}), "content_block_delta"));
        }
        frames.push(typed(json!({"index": index}), "content_block_stop"));
    }
    let end = json!({"delta": {"stop_reason": stop_reason(asked, told), "stop_sequence": null},
        "usage": {"output_tokens": told.completion_tokens}});
    frames.push(typed(end, "message_delta"));
    frames.push(typed(json!({}), "message_stop"));
    frames
}

fn ollama_message(told: &Told, text: &str) -> Value {
    let mut message = json!({"role": "assistant", "content": text});
    if !told.tool_calls.is_empty() {
        let call = |call: &ToolCall| json!({"function": {"name": call.name, "arguments": call.arguments}});
        message["tool_calls"] = told.tool_calls.iter().map(call).collect();
    }
    message
}

fn ollama_end(told: &Told) -> Value {
    let reason = if told.finish == "length" { "length" } else { "stop" };
    json!({"model": told.model, "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": reason,
        "total_duration": 2_000_000, "load_duration": 0, "prompt_eval_count": told.prompt_tokens,
        "prompt_eval_duration": 1_000_000, "eval_count": told.completion_tokens, "eval_duration": 1_000_000})
}

fn ollama_frames(told: &Told) -> Vec<String> {
    let line = |message: Value| {
        let body = json!({"model": told.model, "created_at": "2026-01-01T00:00:00Z", "message": message,
            "done": false});
        format!("{body}\n")
    };
    let mut frames = Vec::new();
    if let Some(thinking) = &told.thinking {
        frames.push(line(json!({"role": "assistant", "content": "", "thinking": thinking})));
    }
    for piece in &told.pieces {
        frames.push(line(json!({"role": "assistant", "content": piece})));
    }
    if !told.tool_calls.is_empty() {
        frames.push(line(ollama_message(told, "")));
    }
    frames.push(format!("{}\n", ollama_end(told)));
    frames
}
