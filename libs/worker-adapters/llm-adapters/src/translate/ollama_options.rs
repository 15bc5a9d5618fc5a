//! Ollama's `options`, `format` and `think` as parameters of an OpenAI request.

use serde_json::{Value, json};

use super::fields::{Object, invalid, take, take_object, wrong};
use crate::Problem;

/// Options that both sides call the same.
const SAME: [&str; 14] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "num_keep",
];

/// Moves `options` of an Ollama request into `target`.
///
/// Options of loading, such as `num_ctx` and `num_gpu`, cannot change an engine that runs, and so have no effect.
/// That hides nothing: a prompt over the engine's context is refused with both numbers, never cut.
pub(super) fn options(request: &mut Object, target: &mut Object) -> Result<(), Problem> {
    let Some(mut options) = take_object(request, "options")? else { return Ok(()) };
    for name in SAME {
        if let Some(value) = number(&mut options, name)? {
            let name = if name == "num_keep" { "n_keep" } else { name };
            target.insert(name.to_owned(), value);
        }
    }
    // Negative numbers mean that there is no limit, which is what silence means to an engine.
    if let Some(limit) = number(&mut options, "num_predict")?.filter(|limit| limit.as_i64() >= Some(0)) {
        target.insert("max_tokens".to_owned(), limit);
    }
    match take(&mut options, "stop") {
        None => {}
        Some(stop @ Value::String(_)) => drop(target.insert("stop".to_owned(), json!([stop]))),
        Some(Value::Array(stops)) if stops.iter().all(Value::is_string) => {
            target.insert("stop".to_owned(), stops.into());
        }
        Some(_) => {
            return Err(invalid("`options.stop` must be a string or a list of strings").param("options"));
        }
    }
    Ok(())
}

fn number(options: &mut Object, name: &'static str) -> Result<Option<Value>, Problem> {
    match take(options, name) {
        Some(value) if !value.is_number() => {
            Err(invalid(format!("`options.{name}` must be a number")).param("options"))
        }
        value => Ok(value),
    }
}

/// The JSON schema that `format` asks the answer to follow; plain `"json"` is any object.
pub(super) fn format_schema(request: &mut Object) -> Result<Option<Value>, Problem> {
    match take(request, "format") {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(json!({"type": "object"}))),
        Some(schema @ Value::Object(_)) => Ok(Some(schema)),
        Some(_) => Err(wrong("format", "\"json\" or a JSON schema")),
    }
}

/// `think` of an Ollama request: whether to, or how hard.
pub(super) fn think(request: &mut Object, target: &mut Object) -> Result<(), Problem> {
    let thinks = match take(request, "think") {
        None => return Ok(()),
        Some(Value::Bool(thinks)) => thinks,
        Some(Value::String(effort)) if matches!(effort.as_str(), "low" | "medium" | "high" | "max") => {
            target.insert("reasoning_effort".to_owned(), effort.into());
            true
        }
        Some(_) => return Err(wrong("think", "true, false, \"low\", \"medium\", \"high\" or \"max\"")),
    };
    target.insert("chat_template_kwargs".to_owned(), json!({"enable_thinking": thinks}));
    Ok(())
}
