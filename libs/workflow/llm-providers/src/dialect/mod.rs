//! How a question is put to each kind of provider, and how its answer is read.

mod chat;
mod messages;
mod ollama;
mod responses;
mod strict;

use llm_adapters::AnswerReader;
use serde_json::{Map, Value, json};
use workflow::{CallFailure, ChatMessage, ModelRequest};
use workflow_spec::{FailureKind, Role};

use crate::framing::Framing;
use crate::setting::{Api, ProviderKind};

pub(crate) type Object = Map<String, Value>;

/// What is sent, and how the answer comes back.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) path: &'static str,
    pub(crate) body: Object,
    pub(crate) framing: Framing,
    pub(crate) reader: Box<dyn AnswerReader>,
    pub(crate) answer_tool: Option<AnswerTool>,
}

/// A tool that the model calls with its answer, where a provider enforces a schema in no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerTool {
    pub(crate) name: &'static str,
    /// The member of the arguments that holds the answer, where the schema is not an object's.
    pub(crate) member: Option<&'static str>,
}

/// How the provider is to keep to a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    /// In its own way.
    Native,
    /// By being told in words.
    Words,
}

/// Puts a question into the provider's words.
pub(crate) fn plan(
    kind: ProviderKind,
    api: Api,
    base_url: &str,
    request: &ModelRequest,
    enforcement: Enforcement,
) -> Result<Plan, CallFailure> {
    let asked = match (enforcement, &request.schema) {
        (Enforcement::Words, Some(schema)) => told_in_words(request, schema),
        _ => request.clone(),
    };
    match kind {
        ProviderKind::Anthropic => messages::plan(&asked),
        ProviderKind::Ollama => ollama::plan(&asked),
        _ => match chosen_api(api, &asked)? {
            Api::Chat => Ok(chat::plan(kind, base_url, &asked)),
            Api::Responses => responses::plan(kind, &asked),
        },
    }
}

/// The setting's protocol, unless the step's option says otherwise.
fn chosen_api(setting: Api, request: &ModelRequest) -> Result<Api, CallFailure> {
    match request.options.get("api") {
        None => Ok(setting),
        Some(word) => word.as_str().and_then(Api::from_word).ok_or_else(|| {
            CallFailure::new(FailureKind::Validation, "the option `api` must be `chat` or `responses`")
        }),
    }
}

/// The same question, with the schema as part of the system's words.
fn told_in_words(request: &ModelRequest, schema: &Value) -> ModelRequest {
    let rule = format!("Answer only with JSON that fits this JSON Schema: {schema}");
    let mut asked = ModelRequest { schema: None, ..request.clone() };
    match asked.messages.first_mut().filter(|message| message.role == Role::System) {
        Some(system) => system.content = format!("{}\n\n{rule}", system.content),
        None => asked.messages.insert(0, ChatMessage { role: Role::System, content: rule }),
    }
    asked
}

/// A step's options without what is said elsewhere in the request.
fn options(request: &ModelRequest) -> Object {
    let mut options = request.options.clone();
    for ours in ["api", "model", "messages", "input", "stream", "stream_options"] {
        options.remove(ours);
    }
    options
}

fn messages(request: &ModelRequest) -> Value {
    let message = |message: &ChatMessage| json!({"role": role(message.role), "content": message.content});
    request.messages.iter().map(message).collect()
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// The URL of a path of OpenAI's or Anthropic's API: a base that ends with a version (`/v1`, `/v1beta/openai`) has it
/// already.
pub(crate) fn url_of(kind: ProviderKind, base_url: &str, path: &str) -> String {
    let base = base_url.trim_end_matches('/');
    let base = match kind {
        ProviderKind::Ollama => base.strip_suffix("/api").or(base.strip_suffix("/v1")).unwrap_or(base),
        _ => base,
    };
    let place = base.split_once("://").map_or(base, |(_, rest)| rest);
    let versioned = place.split('/').skip(1).any(is_version);
    match path.strip_prefix("/v1") {
        Some(rest) if versioned => format!("{base}{rest}"),
        _ => format!("{base}{path}"),
    }
}

/// `v1`, `v1beta`, `v4`.
fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_the_base_url_is_not_repeated() {
        for (kind, base, path, url) in [
            (
                ProviderKind::OpenAi,
                "https://api.openai.com/v1",
                "/v1/models",
                "https://api.openai.com/v1/models",
            ),
            (ProviderKind::Mlx, "http://host:1/", "/v1/models", "http://host:1/v1/models"),
            (
                ProviderKind::OpenAiCompatible,
                "https://host/v1beta/openai/",
                "/v1/models",
                "https://host/v1beta/openai/models",
            ),
            (
                ProviderKind::OpenAiCompatible,
                "https://host/vllm",
                "/v1/models",
                "https://host/vllm/v1/models",
            ),
            (ProviderKind::Anthropic, "https://host", "/v1/messages", "https://host/v1/messages"),
            (ProviderKind::Ollama, "http://host:11434/v1", "/api/chat", "http://host:11434/api/chat"),
            (ProviderKind::Ollama, "http://host:11434", "/api/chat", "http://host:11434/api/chat"),
        ] {
            assert_eq!(url_of(kind, base, path), url);
        }
    }
}
