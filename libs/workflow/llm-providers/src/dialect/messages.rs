//! Anthropic's messages.

use llm_adapters::{AnthropicReader, openai_to_anthropic};
use serde_json::{Value, json};
use workflow::{CallFailure, ModelRequest};
use workflow_spec::FailureKind;

use super::{AnswerTool, Object, Plan, messages, options};
use crate::framing::Framing;

/// The tool that a model calls with an answer that has to fit a schema.
const ANSWER: &str = "answer";

/// Options in Anthropic's own words, which OpenAI has none for. They are passed on as they are.
const OWN_WORDS: [&str; 7] = [
    "thinking",
    "metadata",
    "service_tier",
    "stop_sequences",
    "output_config",
    "container",
    "context_management",
];

pub(super) fn plan(request: &ModelRequest) -> Result<Plan, CallFailure> {
    let mut asked = options(request);
    let own: Vec<(String, Value)> = OWN_WORDS
        .iter()
        .filter_map(|word| asked.remove(*word).map(|value| ((*word).to_owned(), value)))
        .collect();
    asked.insert("model".to_owned(), request.model.as_str().into());
    asked.insert("messages".to_owned(), messages(request));
    let answer_tool = tools(request, &mut asked);
    asked.insert("stream".to_owned(), true.into());
    let told = openai_to_anthropic(Value::Object(asked).to_string().as_bytes())
        .map_err(|problem| CallFailure::new(FailureKind::Validation, problem.message))?;
    let Ok(Value::Object(mut body)) = serde_json::from_slice(&told.body) else {
        return Err(CallFailure::new(FailureKind::Internal, "the request could not be translated"));
    };
    body.extend(own);
    Ok(Plan {
        path: "/v1/messages",
        body,
        framing: Framing::ServerSentEvents,
        reader: Box::new(AnthropicReader::default()),
        answer_tool,
    })
}

/// The step's tools, and the one that takes the answer. Where the step has its own, the model may call one of them.
fn tools(request: &ModelRequest, asked: &mut Object) -> Option<AnswerTool> {
    let own = request.tools.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(schema) = &request.schema else {
        if let Some(tools) = &request.tools {
            asked.insert("tools".to_owned(), tools.clone());
        }
        return None;
    };
    let is_object = schema["type"] == "object";
    let member = (!is_object).then_some("answer");
    let parameters = match member {
        None => (**schema).clone(),
        Some(member) => {
            json!({"type": "object", "required": [member], "properties": {member: **schema}})
        }
    };
    let choice = if own.is_empty() {
        json!({"type": "function", "function": {"name": ANSWER}})
    } else {
        json!("required")
    };
    let description = "Gives the answer.";
    let function = json!({"name": ANSWER, "description": description, "parameters": parameters});
    let tools: Vec<Value> =
        own.into_iter().chain([json!({"type": "function", "function": function})]).collect();
    asked.insert("tools".to_owned(), tools.into());
    asked.insert("tool_choice".to_owned(), choice);
    Some(AnswerTool { name: ANSWER, member })
}
