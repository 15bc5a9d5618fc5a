//! Anthropic's messages as OpenAI's chat requests, for providers that speak only those.

use bytes::Bytes;
use serde_json::{Value, json};

use super::fields::{Object, item, object, take, take_bool, take_list, take_object, take_text, wrong};
use super::{AnswerPlan, Reads, Translated, Writes};
use crate::Problem;

/// Rewrites a message request for a provider that speaks OpenAI's protocol.
pub fn anthropic_to_openai(body: &[u8]) -> Result<Translated, Problem> {
    let mut request = object(body)?;
    let streams = take_bool(&mut request, "stream")?.unwrap_or_default();
    let mut out = Object::new();
    for same in ["model", "max_tokens", "temperature", "top_p", "top_k"] {
        if let Some(value) = take(&mut request, same) {
            out.insert(same.to_owned(), value);
        }
    }
    let system = take(&mut request, "system").map(|system| text_of(system, "system")).transpose()?;
    let asked = take_list(&mut request, "messages")?.ok_or_else(|| wrong("messages", "a list"))?;
    let mut messages: Vec<Value> =
        system.into_iter().map(|system| json!({"role": "system", "content": system})).collect();
    for message in asked {
        add_message(item(message, "messages")?, &mut messages)?;
    }
    out.insert("messages".to_owned(), messages.into());
    if let Some(stops) = take_list(&mut request, "stop_sequences")?.filter(|stops| !stops.is_empty()) {
        out.insert("stop".to_owned(), stops.into());
    }
    if let Some(user) = take_object(&mut request, "metadata")?.and_then(|mut it| take(&mut it, "user_id")) {
        out.insert("user".to_owned(), user);
    }
    tools(&mut request, &mut out)?;
    if let Some(thinking) = take_object(&mut request, "thinking")? {
        think(&thinking, &mut out);
    }
    if streams {
        out.insert("stream".to_owned(), true.into());
        out.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    let plan = AnswerPlan { reads: Reads::OpenAi, writes: Writes::Anthropic, streams };
    Ok(Translated { path: "/v1/chat/completions", body: Bytes::from(Value::Object(out).to_string()), plan })
}

fn add_message(mut message: Object, out: &mut Vec<Value>) -> Result<(), Problem> {
    let role = take_text(&mut message, "role")?.unwrap_or_default();
    let blocks = match take(&mut message, "content") {
        Some(Value::String(text)) => vec![json!({"type": "text", "text": text})],
        Some(Value::Array(blocks)) => blocks,
        _ => return Err(wrong("messages", "messages with text or blocks")),
    };
    match role.as_str() {
        "user" => add_user(blocks, out),
        "assistant" => add_assistant(blocks, out),
        _ => Err(wrong("messages", "messages of user or assistant")),
    }
}

/// What tools gave goes before what the user says: it answers the message before.
fn add_user(blocks: Vec<Value>, out: &mut Vec<Value>) -> Result<(), Problem> {
    let mut parts = Vec::new();
    for block in blocks {
        let mut block = item(block, "messages")?;
        match take_text(&mut block, "type")?.as_deref() {
            Some("text") => parts.push(json!({"type": "text", "text": take_text(&mut block, "text")?})),
            Some("image") => {
                let url = image_url(take_object(&mut block, "source")?.unwrap_or_default())?;
                parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            Some("tool_result") => {
                let id = take_text(&mut block, "tool_use_id")?;
                let content = take(&mut block, "content").map(|content| text_of(content, "messages"));
                let content = content.transpose()?.unwrap_or_default();
                out.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            _ => return Err(wrong("messages", "blocks of text, images or tools, for this provider")),
        }
    }
    if !parts.is_empty() {
        out.push(json!({"role": "user", "content": simplest(parts)}));
    }
    Ok(())
}

/// Thoughts of earlier turns are not told again: their provider alone can read them.
fn add_assistant(blocks: Vec<Value>, out: &mut Vec<Value>) -> Result<(), Problem> {
    let (mut text, mut calls) = (String::new(), Vec::new());
    for block in blocks {
        let mut block = item(block, "messages")?;
        match take_text(&mut block, "type")?.as_deref() {
            Some("text") => text.push_str(&take_text(&mut block, "text")?.unwrap_or_default()),
            Some("tool_use") => {
                let input = take_object(&mut block, "input")?.unwrap_or_default();
                let (id, name) = (take_text(&mut block, "id")?, take_text(&mut block, "name")?);
                let function = json!({"name": name, "arguments": Value::Object(input).to_string()});
                calls.push(json!({"id": id, "type": "function", "function": function}));
            }
            Some("thinking" | "redacted_thinking") => {}
            _ => return Err(wrong("messages", "blocks of text or tools, for this provider")),
        }
    }
    let content = if text.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({"role": "assistant", "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    out.push(message);
    Ok(())
}

/// Parts, or the text alone where that is all there is: some providers know only that.
fn simplest(mut parts: Vec<Value>) -> Value {
    if parts.len() == 1 && parts[0]["type"] == "text" {
        return parts[0]["text"].take();
    }
    parts.into()
}

fn image_url(mut source: Object) -> Result<String, Problem> {
    let mut field = |name| take_text(&mut source, name).map(Option::unwrap_or_default);
    match field("type")?.as_str() {
        "base64" => Ok(format!("data:{};base64,{}", field("media_type")?, field("data")?)),
        "url" => field("url"),
        _ => Err(wrong("messages", "images as base64 or by URL, for this provider")),
    }
}

/// The text of a string or of blocks of text.
fn text_of(content: Value, param: &'static str) -> Result<String, Problem> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(blocks) => {
            let texts: Option<Vec<&str>> = blocks.iter().map(|block| block["text"].as_str()).collect();
            texts.map(|texts| texts.join("\n")).ok_or_else(|| wrong(param, "text alone, for this provider"))
        }
        _ => Err(wrong(param, "text or blocks of text")),
    }
}

fn tools(request: &mut Object, out: &mut Object) -> Result<(), Problem> {
    let choice = take_object(request, "tool_choice")?;
    let Some(tools) = take_list(request, "tools")?.filter(|tools| !tools.is_empty()) else { return Ok(()) };
    let tools: Result<Vec<Value>, Problem> = tools.into_iter().map(tool).collect();
    out.insert("tools".to_owned(), tools?.into());
    let Some(mut choice) = choice else { return Ok(()) };
    let word = match take_text(&mut choice, "type")?.as_deref() {
        Some("auto") => json!("auto"),
        Some("none") => json!("none"),
        Some("any") => json!("required"),
        Some("tool") => json!({"type": "function", "function": {"name": take_text(&mut choice, "name")?}}),
        _ => return Err(wrong("tool_choice", "one of auto, any, tool and none")),
    };
    out.insert("tool_choice".to_owned(), word);
    if take_bool(&mut choice, "disable_parallel_tool_use")? == Some(true) {
        out.insert("parallel_tool_calls".to_owned(), false.into());
    }
    Ok(())
}

fn tool(tool: Value) -> Result<Value, Problem> {
    let mut tool = item(tool, "tools")?;
    let kind = take_text(&mut tool, "type")?;
    let (name, schema) = (take_text(&mut tool, "name")?, take_object(&mut tool, "input_schema")?);
    let (Some(name), Some(schema), None | Some("custom")) = (name, schema, kind.as_deref()) else {
        return Err(wrong("tools", "tools with a name and an `input_schema`, for this provider"));
    };
    let mut function = json!({"name": name, "parameters": schema});
    if let Some(description) = take_text(&mut tool, "description")? {
        function["description"] = description.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

/// A budget of thought in the three steps that OpenAI has for it.
fn think(thinking: &Object, out: &mut Object) {
    let Some(budget) = thinking.get("budget_tokens").and_then(Value::as_u64) else { return };
    let effort = match budget {
        0..4096 => "low",
        4096..16384 => "medium",
        _ => "high",
    };
    out.insert("reasoning_effort".to_owned(), effort.into());
}
