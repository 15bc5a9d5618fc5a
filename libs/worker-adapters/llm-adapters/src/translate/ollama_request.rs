//! Ollama's requests as OpenAI's: `/api/chat`, `/api/generate` and `/api/embed`.

use bytes::Bytes;
use orch_core::ErrorCode;
use serde_json::{Value, json};

use super::fields::{Object, invalid, object, take, take_bool, take_list, take_text, wrong};
use super::ollama_messages::{content, messages};
use super::ollama_options::{format_schema, options, think};
use super::{AnswerPlan, OllamaShape, Reads, Translated, Writes};
use crate::Problem;

/// Rewrites a request to one of Ollama's endpoints that an engine has to answer.
pub fn translate_ollama(path: &str, body: &[u8]) -> Result<Translated, Problem> {
    let mut request = object(body)?;
    match path {
        "/api/chat" => chat(&mut request),
        "/api/generate" => generate(&mut request),
        "/api/embed" => embed(&mut request),
        _ => Err(Problem::new(ErrorCode::NotFound, "there is nothing at this path")),
    }
}

fn chat(request: &mut Object) -> Result<Translated, Problem> {
    let asked = take_list(request, "messages")?.unwrap_or_default();
    if asked.is_empty() {
        return load(request, OllamaShape::Chat);
    }
    let mut out = begin(request)?;
    out.insert("messages".to_owned(), messages(asked)?.into());
    if let Some(tools) = take_list(request, "tools")?.filter(|tools| !tools.is_empty()) {
        out.insert("tools".to_owned(), tools.into());
    }
    chat_request(request, out, OllamaShape::Chat)
}

/// Three kinds: text as it is, text around a hole, and a single question.
fn generate(request: &mut Object) -> Result<Translated, Problem> {
    let prompt = take_text(request, "prompt")?.unwrap_or_default();
    let suffix = take_text(request, "suffix")?.filter(|suffix| !suffix.is_empty());
    let raw = take_bool(request, "raw")?.unwrap_or_default();
    let system = take_text(request, "system")?.filter(|system| !system.is_empty());
    let images = take_list(request, "images")?.unwrap_or_default();
    for (param, why) in [
        ("template", "belongs to the engine and cannot change for one request; use `raw`"),
        ("context", "is not kept between requests; send the conversation to /api/chat"),
    ] {
        if take(request, param).is_some_and(|value| value != json!("") && value != json!([])) {
            return Err(invalid(format!("`{param}` {why}")).param(param));
        }
    }
    if prompt.is_empty() && suffix.is_none() && images.is_empty() {
        return load(request, OllamaShape::Generate);
    }
    let mut out = begin(request)?;
    if raw || suffix.is_some() {
        if !images.is_empty() || system.is_some() {
            let param = if images.is_empty() { "system" } else { "images" };
            return Err(
                invalid(format!("`{param}` needs a chat, so neither `raw` nor `suffix`")).param(param)
            );
        }
        return text_request(request, out, prompt, suffix);
    }
    let system = system.map(|system| json!({"role": "system", "content": system}));
    let user = json!({"role": "user", "content": content(prompt, images)?});
    out.insert("messages".to_owned(), system.into_iter().chain([user]).collect::<Vec<Value>>().into());
    chat_request(request, out, OllamaShape::Generate)
}

fn embed(request: &mut Object) -> Result<Translated, Problem> {
    let mut out = begin(request)?;
    let input = take(request, "input").ok_or_else(|| wrong("input", "a string or a list of strings"))?;
    out.insert("input".to_owned(), input);
    if let Some(dimensions) = take(request, "dimensions") {
        out.insert("dimensions".to_owned(), dimensions);
    }
    Ok(translated("/v1/embeddings", out, Writes::OllamaEmbed, false))
}

/// A request without a question asks for the model to be loaded. Any cheap request does that.
fn load(request: &mut Object, shape: OllamaShape) -> Result<Translated, Problem> {
    let keep_alive = take(request, "keep_alive");
    if keep_alive
        .is_some_and(|keep| matches!(&keep, Value::Number(zero) if zero.as_f64() == Some(0.0)) || keep == "0")
    {
        let message = "a request unloads no model here; `llama-orch down` does, or `lifecycle.idle_ttl`";
        return Err(invalid(message).param("keep_alive"));
    }
    let mut out = begin(request)?;
    out.insert("content".to_owned(), "".into());
    Ok(translated("/tokenize", out, Writes::OllamaLoad(shape), false))
}

fn begin(request: &mut Object) -> Result<Object, Problem> {
    let model = take_text(request, "model")?;
    Ok(model.map(|model| ("model".to_owned(), model.into())).into_iter().collect())
}

fn chat_request(request: &mut Object, mut out: Object, shape: OllamaShape) -> Result<Translated, Problem> {
    options(request, &mut out)?;
    think(request, &mut out)?;
    if let Some(schema) = format_schema(request)? {
        let format = json!({"type": "json_schema", "json_schema": {"name": "format", "schema": schema}});
        out.insert("response_format".to_owned(), format);
    }
    generating(request, out, "/v1/chat/completions", shape)
}

fn text_request(
    request: &mut Object,
    mut out: Object,
    prompt: String,
    suffix: Option<String>,
) -> Result<Translated, Problem> {
    options(request, &mut out)?;
    if let Some(schema) = format_schema(request)? {
        out.insert("json_schema".to_owned(), schema);
    }
    let path = if let Some(suffix) = suffix {
        out.insert("input_prefix".to_owned(), prompt.into());
        out.insert("input_suffix".to_owned(), suffix.into());
        "/infill"
    } else {
        out.insert("prompt".to_owned(), prompt.into());
        "/v1/completions"
    };
    generating(request, out, path, OllamaShape::Generate)
}

fn generating(
    request: &mut Object,
    mut out: Object,
    path: &'static str,
    shape: OllamaShape,
) -> Result<Translated, Problem> {
    let streams = take_bool(request, "stream")?.unwrap_or(true);
    if streams {
        out.insert("stream".to_owned(), true.into());
        out.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    Ok(translated(path, out, Writes::Ollama(shape), streams))
}

fn translated(path: &'static str, body: Object, writes: Writes, streams: bool) -> Translated {
    let body = Bytes::from(Value::Object(body).to_string());
    Translated { path, body, plan: AnswerPlan { reads: Reads::OpenAi, writes, streams } }
}
