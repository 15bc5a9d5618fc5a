//! OpenAI's chat completions, and all that speak like it.

use llm_adapters::{AnswerFault, AnswerReader, Delta, Event, Finish, OpenAiReader};
use memchr::memmem;
use serde_json::{Value, json};
use workflow::ModelRequest;

use super::strict::can_be_strict;
use super::{Plan, messages, options};
use crate::framing::Framing;
use crate::setting::ProviderKind;

pub(super) fn plan(kind: ProviderKind, base_url: &str, request: &ModelRequest) -> Plan {
    let mut body = options(request);
    // OpenAI's own newer models do not know the older word any more; others may not know the newer one.
    if kind == ProviderKind::OpenAi
        && base_url.contains("api.openai.com")
        && let Some(limit) = body.remove("max_tokens")
    {
        body.entry("max_completion_tokens").or_insert(limit);
    }
    if let Some(tools) = &request.tools {
        body.insert("tools".to_owned(), tools.clone());
    }
    if let Some(schema) = &request.schema {
        let format = json!({"name": "answer", "schema": **schema, "strict": can_be_strict(schema)});
        body.insert("response_format".to_owned(), json!({"type": "json_schema", "json_schema": format}));
    }
    body.insert("model".to_owned(), request.model.as_str().into());
    body.insert("messages".to_owned(), messages(request));
    body.insert("stream".to_owned(), true.into());
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    Plan {
        path: "/v1/chat/completions",
        body,
        framing: Framing::ServerSentEvents,
        reader: Box::new(ChatReader::default()),
        answer_tool: None,
    }
}

/// Reads chat completions, and notices when the model would not answer.
#[derive(Debug, Default)]
struct ChatReader {
    inner: OpenAiReader,
    refused: bool,
}

impl AnswerReader for ChatReader {
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault> {
        if !self.refused && memmem::find(&event.data, b"\"refusal\":\"").is_some() {
            let body: Value = serde_json::from_slice(&event.data).unwrap_or_default();
            self.refused = refuses(&body["choices"][0]["delta"]);
        }
        let delta = self.inner.event(event)?;
        Ok(delta.map(|delta| self.marked(delta)))
    }

    fn is_complete(&self) -> bool {
        self.inner.is_complete()
    }

    fn whole(&mut self, body: Value) -> Result<Delta, AnswerFault> {
        self.refused = refuses(&body["choices"][0]["message"]);
        let delta = self.inner.whole(body)?;
        Ok(self.marked(delta))
    }
}

impl ChatReader {
    fn marked(&self, mut delta: Delta) -> Delta {
        if self.refused && delta.finish == Some(Finish::Stop) {
            delta.finish = Some(Finish::Filtered);
        }
        delta
    }
}

fn refuses(message: &Value) -> bool {
    message["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty())
}
