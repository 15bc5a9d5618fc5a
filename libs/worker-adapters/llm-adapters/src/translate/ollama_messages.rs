//! Ollama's messages as OpenAI's: images become parts, calls of tools get the ids that Ollama has none of.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::fields::{Object, item, take, take_list, take_object, take_text, wrong};
use crate::Problem;

/// The calls of tools that no result answered yet.
#[derive(Default)]
struct OpenCalls {
    made: usize,
    open: VecDeque<(String, String)>,
}

impl OpenCalls {
    fn call(&mut self, name: &str, id: Option<String>) -> String {
        let id = id.unwrap_or_else(|| format!("call_{}", self.made));
        self.made += 1;
        self.open.push_back((name.to_owned(), id.clone()));
        id
    }

    /// The call that a result belongs to: by its name, else the oldest.
    fn answered(&mut self, name: Option<&str>) -> Option<String> {
        let by_name = name.and_then(|name| self.open.iter().position(|(called, _)| called == name));
        self.open.remove(by_name.unwrap_or_default()).map(|(_, id)| id)
    }
}

pub(super) fn messages(list: Vec<Value>) -> Result<Vec<Value>, Problem> {
    let mut calls = OpenCalls::default();
    list.into_iter().map(|entry| message(item(entry, "messages")?, &mut calls)).collect()
}

fn message(mut message: Object, calls: &mut OpenCalls) -> Result<Value, Problem> {
    let role = take_text(&mut message, "role")?.ok_or_else(|| wrong("messages", "objects with a `role`"))?;
    let text = take_text(&mut message, "content")?.unwrap_or_default();
    let images = take_list(&mut message, "images")?.unwrap_or_default();
    let mut out = Object::new();
    out.insert("role".to_owned(), role.as_str().into());
    out.insert("content".to_owned(), content(text, images)?);
    if let Some(thinking) = take_text(&mut message, "thinking")? {
        out.insert("reasoning_content".to_owned(), thinking.into());
    }
    let made = take_list(&mut message, "tool_calls")?.unwrap_or_default();
    if !made.is_empty() {
        let made: Result<Vec<Value>, Problem> = made.into_iter().map(|call| tool_call(call, calls)).collect();
        out.insert("tool_calls".to_owned(), made?.into());
    }
    if role == "tool" {
        let name = take_text(&mut message, "tool_name")?;
        let given = take_text(&mut message, "tool_call_id")?;
        let id = calls.answered(name.as_deref());
        // The call may have been forgotten with an older part of the conversation.
        let id = given.or(id).unwrap_or_else(|| format!("call_{}", calls.made));
        out.insert("tool_call_id".to_owned(), id.into());
    }
    Ok(out.into())
}

fn tool_call(call: Value, calls: &mut OpenCalls) -> Result<Value, Problem> {
    let mut call = item(call, "tool_calls")?;
    let id = take_text(&mut call, "id")?;
    let mut function = take_object(&mut call, "function")?.ok_or_else(|| wrong("tool_calls", "functions"))?;
    let name =
        take_text(&mut function, "name")?.ok_or_else(|| wrong("tool_calls", "functions with a name"))?;
    let arguments = match take(&mut function, "arguments") {
        None => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(arguments) => arguments.to_string(),
    };
    let id = calls.call(&name, id);
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

/// Text, or parts where there are images.
pub(super) fn content(text: String, images: Vec<Value>) -> Result<Value, Problem> {
    if images.is_empty() {
        return Ok(text.into());
    }
    let mut parts = vec![json!({"type": "text", "text": text})];
    for image in images {
        let Value::String(image) = image else { return Err(wrong("images", "a list of base64 texts")) };
        let url = format!("data:{};base64,{image}", media_type(&image));
        parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    Ok(parts.into())
}

/// What the first bytes of a picture, as base64, say it is.
fn media_type(base64: &str) -> &'static str {
    match base64.get(..5) {
        Some("iVBOR") => "image/png",
        Some("R0lGO") => "image/gif",
        Some("UklGR") => "image/webp",
        _ => "image/jpeg",
    }
}
