//! OpenAI's chat requests as Anthropic's messages, for providers that speak only those.

use bytes::Bytes;
use serde_json::{Value, json};

use super::fields::{
    Object, invalid, item, object, take, take_bool, take_list, take_object, take_text, wrong,
};
use super::{AnswerPlan, Reads, Translated, Writes};
use crate::Problem;

/// Anthropic wants a limit; OpenAI's clients mostly set none.
const DEFAULT_MAX_TOKENS: u64 = 8192;

/// What cannot be said to Anthropic, with the value that changes nothing.
const UNTRANSLATABLE: [(&str, &str); 20] = [
    ("n", "1"),
    ("response_format", r#"{"type":"text"}"#),
    ("logprobs", "false"),
    ("top_logprobs", "0"),
    ("logit_bias", "{}"),
    ("frequency_penalty", "0"),
    ("presence_penalty", "0"),
    ("repeat_penalty", "1"),
    ("seed", "-1"),
    ("min_p", "0"),
    ("functions", "[]"),
    ("function_call", r#""none""#),
    ("modalities", r#"["text"]"#),
    ("grammar", r#""""#),
    ("json_schema", "{}"),
    ("prediction", "{}"),
    ("typical_p", "1"),
    ("mirostat", "0"),
    ("reasoning_effort", r#""none""#),
    ("chat_template_kwargs", r#"{"enable_thinking":false}"#),
];

/// Rewrites a chat completion for a provider that speaks Anthropic's protocol.
pub fn openai_to_anthropic(body: &[u8]) -> Result<Translated, Problem> {
    let mut request = object(body)?;
    let streams = take_bool(&mut request, "stream")?.unwrap_or_default();
    let options = take_object(&mut request, "stream_options")?.unwrap_or_default();
    let include_usage = options.get("include_usage").and_then(Value::as_bool).unwrap_or_default();
    let body = translated(request, streams)?;
    let writes = Writes::OpenAi { include_usage };
    let plan = AnswerPlan { reads: Reads::Anthropic, writes, streams };
    Ok(Translated { path: "/v1/messages", body: Bytes::from(body.to_string()), plan })
}

fn translated(mut request: Object, streams: bool) -> Result<Value, Problem> {
    refuse_untranslatable(&request)?;
    let mut out = Object::new();
    let max_tokens = take(&mut request, "max_completion_tokens").or(take(&mut request, "max_tokens"));
    out.insert("max_tokens".to_owned(), max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.into()));
    for same in ["model", "temperature", "top_p", "top_k"] {
        if let Some(value) = take(&mut request, same) {
            out.insert(same.to_owned(), value);
        }
    }
    let asked = take_list(&mut request, "messages")?.ok_or_else(|| wrong("messages", "a list"))?;
    let (system, messages) = messages(asked)?;
    if !system.is_empty() {
        out.insert("system".to_owned(), system.into());
    }
    out.insert("messages".to_owned(), messages.into());
    match take(&mut request, "stop") {
        None => {}
        Some(stop @ Value::String(_)) => drop(out.insert("stop_sequences".to_owned(), json!([stop]))),
        Some(stops @ Value::Array(_)) => drop(out.insert("stop_sequences".to_owned(), stops)),
        Some(_) => return Err(wrong("stop", "a string or a list of strings")),
    }
    if let Some(user) = take_text(&mut request, "user")? {
        out.insert("metadata".to_owned(), json!({"user_id": user}));
    }
    tools(&mut request, &mut out)?;
    if streams {
        out.insert("stream".to_owned(), true.into());
    }
    Ok(out.into())
}

fn refuse_untranslatable(request: &Object) -> Result<(), Problem> {
    for (param, neutral) in UNTRANSLATABLE {
        let Some(value) = request.get(param).filter(|value| !value.is_null()) else { continue };
        let neutral: Value = serde_json::from_str(neutral).expect("the table holds JSON");
        let same = *value == neutral || value.as_f64().is_some_and(|number| Some(number) == neutral.as_f64());
        if !same {
            return Err(invalid(format!("`{param}` cannot be told to this provider")).param(param));
        }
    }
    Ok(())
}

/// The system's words, and the others. Neighbours of one role become one message, as Anthropic wants it.
fn messages(asked: Vec<Value>) -> Result<(String, Vec<Value>), Problem> {
    let mut system = Vec::new();
    let mut all: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for message in asked {
        let mut message = item(message, "messages")?;
        let role = take_text(&mut message, "role")?.unwrap_or_default();
        let content = take(&mut message, "content").unwrap_or_default();
        let (role, blocks) = match role.as_str() {
            "system" | "developer" => {
                system.push(plain(content)?);
                continue;
            }
            "user" => ("user", blocks(content)?),
            "assistant" => ("assistant", assistant(content, &mut message)?),
            "tool" => ("user", vec![tool_result(content, &mut message)?]),
            _ => return Err(wrong("messages", "messages of system, user, assistant or tool")),
        };
        match all.last_mut() {
            Some((last, together)) if *last == role => together.extend(blocks),
            _ => all.push((role, blocks)),
        }
    }
    let messages = all.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    Ok((system.join("\n\n"), messages))
}

fn assistant(content: Value, message: &mut Object) -> Result<Vec<Value>, Problem> {
    let mut blocks = blocks(content)?;
    for call in take_list(message, "tool_calls")?.unwrap_or_default() {
        let mut call = item(call, "tool_calls")?;
        let id = take_text(&mut call, "id")?;
        let mut function =
            take_object(&mut call, "function")?.ok_or_else(|| wrong("tool_calls", "functions"))?;
        let arguments = take_text(&mut function, "arguments")?.unwrap_or_default();
        let input: Value = match arguments.trim() {
            "" => json!({}),
            text => {
                serde_json::from_str(text).map_err(|_| wrong("tool_calls", "calls with JSON arguments"))?
            }
        };
        let name = take_text(&mut function, "name")?;
        blocks.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
    }
    Ok(blocks)
}

fn tool_result(content: Value, message: &mut Object) -> Result<Value, Problem> {
    let id = take_text(message, "tool_call_id")?
        .ok_or_else(|| wrong("messages", "results with a `tool_call_id`"))?;
    Ok(json!({"type": "tool_result", "tool_use_id": id, "content": blocks(content)?}))
}

fn blocks(content: Value) -> Result<Vec<Value>, Problem> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![json!({"type": "text", "text": text})]),
        Value::Array(parts) => parts.into_iter().map(part).collect(),
        _ => Err(wrong("messages", "text or parts")),
    }
}

fn part(part: Value) -> Result<Value, Problem> {
    let mut part = item(part, "messages")?;
    match take_text(&mut part, "type")?.as_deref() {
        Some("text") => Ok(json!({"type": "text", "text": take_text(&mut part, "text")?})),
        Some("image_url") => {
            let mut image = take_object(&mut part, "image_url")?.unwrap_or_default();
            let url =
                take_text(&mut image, "url")?.ok_or_else(|| wrong("messages", "images with a `url`"))?;
            Ok(json!({"type": "image", "source": image_source(&url)}))
        }
        _ => Err(wrong("messages", "parts of text or images, for this provider")),
    }
}

fn image_source(url: &str) -> Value {
    match url.strip_prefix("data:").and_then(|data| data.split_once(";base64,")) {
        Some((media_type, data)) => json!({"type": "base64", "media_type": media_type, "data": data}),
        None => json!({"type": "url", "url": url}),
    }
}

/// A system's words, which are text alone.
fn plain(content: Value) -> Result<String, Problem> {
    let blocks = blocks(content)?;
    let texts: Option<Vec<&str>> = blocks.iter().map(|block| block["text"].as_str()).collect();
    texts.map(|texts| texts.join("\n")).ok_or_else(|| wrong("messages", "text in the system's message"))
}

fn tools(request: &mut Object, out: &mut Object) -> Result<(), Problem> {
    let parallel = take_bool(request, "parallel_tool_calls")?;
    let choice = take(request, "tool_choice");
    let Some(tools) = take_list(request, "tools")?.filter(|tools| !tools.is_empty()) else { return Ok(()) };
    let tools: Result<Vec<Value>, Problem> = tools.into_iter().map(tool).collect();
    out.insert("tools".to_owned(), tools?.into());
    let mut choice = match choice {
        None => json!({"type": "auto"}),
        Some(Value::String(word)) => match word.as_str() {
            "auto" | "none" => json!({"type": word}),
            "required" => json!({"type": "any"}),
            _ => return Err(wrong("tool_choice", "auto, none, required or a function")),
        },
        Some(named) => match named["function"]["name"].as_str() {
            Some(name) => json!({"type": "tool", "name": name}),
            None => return Err(wrong("tool_choice", "auto, none, required or a function")),
        },
    };
    if parallel == Some(false) && choice["type"] != "none" {
        choice["disable_parallel_tool_use"] = true.into();
    }
    out.insert("tool_choice".to_owned(), choice);
    Ok(())
}

fn tool(tool: Value) -> Result<Value, Problem> {
    let mut tool = item(tool, "tools")?;
    let mut function =
        take_object(&mut tool, "function")?.ok_or_else(|| wrong("tools", "a list of functions"))?;
    let name = take_text(&mut function, "name")?.ok_or_else(|| wrong("tools", "functions with a name"))?;
    let schema = take(&mut function, "parameters").unwrap_or_else(|| json!({"type": "object"}));
    let mut out = json!({"name": name, "input_schema": schema});
    if let Some(description) = take_text(&mut function, "description")? {
        out["description"] = description.into();
    }
    Ok(out)
}
