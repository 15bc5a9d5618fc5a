//! What would be generated, in the words of each dialect.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::answers::error;
use crate::connection::{Answer, Request};
use crate::engine::Engine;

const DEFAULT_TEXT: &str = "the quick brown fox jumps over the lazy dog";
const DEFAULT_TOKENS: u64 = 8;

/// In which protocol the request came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Completion,
    Messages,
}

/// Everything that an answer is made of.
pub(crate) struct Generation {
    dialect: Dialect,
    id: String,
    model: String,
    created: i64,
    pub(crate) streaming: bool,
    include_usage: bool,
    prompt_tokens: u64,
    /// Whether the request said how many tokens there are to be: that many are said.
    is_cut: bool,
    pub(crate) tokens: Vec<String>,
}

/// Reads a request and decides what to say; or refuses, as the real one would.
pub(crate) fn generate(engine: &Engine, request: &Request, dialect: Dialect) -> Result<Generation, Answer> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let invalid = |message: &str| error(400, "invalid_request_error", message);
    let asked: Value = serde_json::from_slice(&request.body)
        .map_err(|problem| invalid(&format!("[json.exception.parse_error.101] {problem}")))?;
    let required = if dialect == Dialect::Completion { "prompt" } else { "messages" };
    if asked.get(required).is_none() {
        return Err(invalid(&format!("'{required}' is required")));
    }
    let prompt_tokens = count_prompt(&asked);
    check_context(engine, prompt_tokens)?;
    engine.counters.prompt_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
    let limit = asked["max_tokens"].as_u64().or_else(|| asked["max_completion_tokens"].as_u64());
    Ok(Generation {
        dialect,
        id: format!("chatcmpl-fake{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        model: engine.options.alias.clone(),
        created: orch_core::UnixMillis::now().0 / 1000,
        streaming: asked["stream"] == true,
        include_usage: asked["stream_options"]["include_usage"] == true,
        prompt_tokens,
        is_cut: limit.is_some(),
        tokens: say(engine, limit),
    })
}

fn check_context(engine: &Engine, prompt_tokens: u64) -> Result<(), Answer> {
    let context = engine.options.context / engine.options.slots as u64;
    if prompt_tokens <= context {
        return Ok(());
    }
    let message = format!(
        "request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
    );
    let body = json!({"error": {"code": 400, "message": message, "type": "exceed_context_size_error",
                                "n_prompt_tokens": prompt_tokens, "n_ctx": context}});
    Err(Answer::json(400, &body))
}

/// One token for every word, and one for the beginning.
pub(crate) fn count_prompt(asked: &Value) -> u64 {
    fn words(value: &Value) -> usize {
        match value {
            Value::String(text) => text.split_whitespace().count(),
            Value::Array(items) => items.iter().map(words).sum(),
            Value::Object(fields) => {
                let textual = |(name, value): (&String, &Value)| match name.as_str() {
                    "content" | "text" | "messages" | "prompt" | "input" | "system" => words(value),
                    _ => 0,
                };
                fields.iter().map(textual).sum()
            }
            _ => 0,
        }
    }
    1 + words(asked) as u64
}

fn say(engine: &Engine, limit: Option<u64>) -> Vec<String> {
    let faults = engine.faults();
    let text = faults.text("FAKE_TEXT").unwrap_or(DEFAULT_TEXT);
    let count = limit.unwrap_or_else(|| faults.number("FAKE_TOKENS").unwrap_or(DEFAULT_TOKENS));
    let words = text.split_whitespace().cycle().take(count as usize);
    words
        .enumerate()
        .map(|(index, word)| if index == 0 { word.to_owned() } else { format!(" {word}") })
        .collect()
}

impl Generation {
    /// OpenAI's word for why it ends.
    const fn finish(&self) -> &'static str {
        if self.is_cut { "length" } else { "stop" }
    }

    /// The same in Anthropic's words.
    const fn stop_reason(&self) -> &'static str {
        if self.is_cut { "max_tokens" } else { "end_turn" }
    }

    /// The answer when it is not streamed.
    pub(crate) fn whole(&self) -> Value {
        let text = self.tokens.concat();
        match self.dialect {
            Dialect::Chat => {
                let message = json!({"role": "assistant", "content": text});
                let choice = json!({"finish_reason": self.finish(), "index": 0, "message": message});
                self.openai("chat.completion", &[choice], true)
            }
            Dialect::Completion => {
                let choice =
                    json!({"text": text, "index": 0, "logprobs": null, "finish_reason": self.finish()});
                self.openai("text_completion", &[choice], true)
            }
            Dialect::Messages => json!({
                "id": self.id, "type": "message", "role": "assistant",
                "content": [{"type": "text", "text": text}], "model": self.model,
                "stop_reason": self.stop_reason(), "stop_sequence": null, "usage": self.anthropic_usage(),
            }),
        }
    }

    /// The frames before the first token.
    pub(crate) fn opening(&self, message_start: bool) -> Vec<String> {
        match self.dialect {
            Dialect::Chat => {
                vec![self.chat_frame(&json!({"role": "assistant", "content": null}), &Value::Null)]
            }
            Dialect::Completion => Vec::new(),
            Dialect::Messages => {
                let message = json!({
                    "id": self.id, "type": "message", "role": "assistant", "content": [], "model": self.model,
                    "stop_reason": null, "stop_sequence": null,
                    "usage": {"cache_read_input_tokens": 0, "input_tokens": self.prompt_tokens, "output_tokens": 0},
                });
                let start = event("message_start", &json!({"type": "message_start", "message": message}));
                let block = json!({"type": "content_block_start", "index": 0,
                                   "content_block": {"type": "text", "text": ""}});
                let block = event("content_block_start", &block);
                if message_start { vec![start, block] } else { vec![block] }
            }
        }
    }

    /// The frame of one token.
    pub(crate) fn token(&self, text: &str) -> String {
        match self.dialect {
            Dialect::Chat => self.chat_frame(&json!({"content": text}), &Value::Null),
            Dialect::Completion => {
                let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": null});
                data(&self.openai("text_completion", &[choice], false))
            }
            Dialect::Messages => {
                let delta = json!({"type": "text_delta", "text": text});
                event(
                    "content_block_delta",
                    &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
                )
            }
        }
    }

    /// The frames after the last token; the very last one says that it is over.
    pub(crate) fn closing(&self) -> Vec<String> {
        match self.dialect {
            Dialect::Chat => self.chat_closing(),
            Dialect::Completion => {
                let choice =
                    json!({"text": "", "index": 0, "logprobs": null, "finish_reason": self.finish()});
                vec![data(&self.openai("text_completion", &[choice], true)), done()]
            }
            Dialect::Messages => {
                let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
                let usage = json!({"output_tokens": self.tokens.len()});
                vec![
                    event("content_block_stop", &json!({"type": "content_block_stop", "index": 0})),
                    event("message_delta", &json!({"type": "message_delta", "delta": delta, "usage": usage})),
                    event("message_stop", &json!({"type": "message_stop"})),
                ]
            }
        }
    }

    fn chat_closing(&self) -> Vec<String> {
        let finish = Value::from(self.finish());
        if !self.include_usage {
            let choice = json!({"finish_reason": finish, "index": 0, "delta": {}});
            let mut last = self.openai("chat.completion.chunk", &[choice], true);
            last.as_object_mut().expect("it is made as an object").remove("usage");
            return vec![data(&last), done()];
        }
        let finish = self.chat_frame(&json!({}), &finish);
        vec![finish, data(&self.openai("chat.completion.chunk", &[], true)), done()]
    }

    fn chat_frame(&self, delta: &Value, finish: &Value) -> String {
        let choice = json!({"finish_reason": finish, "index": 0, "delta": delta});
        data(&self.openai("chat.completion.chunk", &[choice], false))
    }

    fn openai(&self, object: &str, choices: &[Value], last: bool) -> Value {
        let mut body = json!({
            "choices": choices, "created": self.created, "id": self.id, "model": self.model,
            "system_fingerprint": "b11434-fake", "object": object,
        });
        if last {
            let made = self.tokens.len() as u64;
            body["usage"] = json!({
                "completion_tokens": made, "prompt_tokens": self.prompt_tokens,
                "total_tokens": made + self.prompt_tokens, "prompt_tokens_details": {"cached_tokens": 0},
            });
            body["timings"] = json!({
                "cache_n": 0, "prompt_n": self.prompt_tokens, "prompt_ms": 1.0, "prompt_per_second": 1000.0,
                "predicted_n": made, "predicted_ms": 1.0, "predicted_per_second": 1000.0,
            });
        }
        body
    }

    fn anthropic_usage(&self) -> Value {
        json!({"cache_read_input_tokens": 0, "input_tokens": self.prompt_tokens, "output_tokens": self.tokens.len()})
    }
}

fn data(body: &Value) -> String {
    format!("data: {body}\n\n")
}

fn event(name: &str, body: &Value) -> String {
    format!("event: {name}\ndata: {body}\n\n")
}

fn done() -> String {
    "data: [DONE]\n\n".to_owned()
}
