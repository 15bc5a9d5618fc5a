//! What a request in any of the dialects asks.

use serde_json::Value;

use super::ledger::Prompt;

/// In which protocol a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Chat,
    Responses,
    Messages,
    Ollama,
}

impl Speech {
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let ends = |end: &str| path.ends_with(end);
        Some(match path {
            _ if ends("/chat/completions") => Self::Chat,
            _ if ends("/responses") => Self::Responses,
            _ if ends("/messages") => Self::Messages,
            _ if ends("/api/chat") => Self::Ollama,
            _ => return None,
        })
    }
}

/// What is read off a request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) prompt: Prompt,
    pub(crate) streams: bool,
    pub(crate) include_usage: bool,
    /// What the answer has to fit.
    pub(crate) schema: Option<Value>,
    /// The tool that has to be called.
    pub(crate) forced_tool: Option<String>,
    pub(crate) max_tokens: Option<u64>,
}

pub(crate) fn asked(speech: Speech, body: &Value) -> Asked {
    let forced_tool = (body["tool_choice"]["type"] == "tool")
        .then(|| body["tool_choice"]["name"].as_str().map(str::to_owned))
        .flatten();
    let schema = match speech {
        Speech::Chat => body["response_format"]["json_schema"].get("schema"),
        Speech::Responses => body["text"]["format"].get("schema"),
        Speech::Ollama => body.get("format").filter(|format| format.is_object()),
        Speech::Messages => body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|tool| tool["name"].as_str() == forced_tool.as_deref())
            .and_then(|tool| tool.get("input_schema")),
    };
    let limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    let streams = body["stream"].as_bool().unwrap_or(speech == Speech::Ollama);
    Asked {
        prompt: prompt(body),
        streams,
        include_usage: body["stream_options"]["include_usage"] == true,
        schema: schema.cloned(),
        forced_tool,
        max_tokens: limits
            .iter()
            .find_map(|name| body[*name].as_u64())
            .or_else(|| body["options"]["num_predict"].as_u64()),
    }
}

fn prompt(body: &Value) -> Prompt {
    let mut texts = Vec::new();
    for key in ["system", "instructions"] {
        texts.extend(content(&body[key]));
    }
    match &body["input"] {
        Value::String(text) => texts.push(text.clone()),
        input => {
            let messages = input.as_array().or_else(|| body["messages"].as_array());
            texts.extend(messages.into_iter().flatten().filter_map(|message| content(&message["content"])));
        }
    }
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    Prompt { model, all: texts.join("\n"), last: texts.pop().unwrap_or_default() }
}

/// Text, or the text of parts.
fn content(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().concat())
        }
        _ => None,
    }
}
