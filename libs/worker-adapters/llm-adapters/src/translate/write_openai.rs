//! Writing OpenAI's chat completions.

use serde_json::{Map, Value, json};

use super::About;
use super::answer::{AnswerFault, Writer};
use super::delta::{Counts, Delta, Finish, ToolPiece};
use super::tool_calls::ToolCalls;

#[derive(Debug)]
pub(super) struct OpenAiWriter {
    about: About,
    /// Whether the client asked for a last chunk with the usage.
    include_usage: bool,
    begun: bool,
    counts: Counts,
    finish: Option<Finish>,
}

impl OpenAiWriter {
    pub(super) fn new(about: &About, include_usage: bool) -> Self {
        let (counts, finish) = (Counts::default(), None);
        Self { about: about.clone(), include_usage, begun: false, counts, finish }
    }

    fn head(&self, object: &str) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), format!("chatcmpl-{}", self.about.request_id).into()),
            ("object".to_owned(), object.into()),
            ("created".to_owned(), (self.about.began.0 / 1000).into()),
            ("model".to_owned(), self.about.model.as_str().into()),
        ])
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>, out: &mut Vec<u8>) {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        self.write(vec![choice], None, out);
    }

    fn write(&self, choices: Vec<Value>, usage: Option<Value>, out: &mut Vec<u8>) {
        let mut chunk = self.head("chat.completion.chunk");
        chunk.insert("choices".to_owned(), choices.into());
        if let Some(usage) = usage {
            chunk.insert("usage".to_owned(), usage);
        }
        out.extend_from_slice(format!("data: {}\n\n", Value::Object(chunk)).as_bytes());
    }

    fn finish_reason(&self) -> &'static str {
        match self.finish {
            None | Some(Finish::Stop) => "stop",
            Some(Finish::Length) => "length",
            Some(Finish::ToolCalls) => "tool_calls",
            Some(Finish::Filtered) => "content_filter",
        }
    }

    /// Nothing where the other side counted nothing.
    fn usage(&self) -> Option<Value> {
        let (prompt, completion) = self.counts.prompt.zip(self.counts.completion)?;
        let mut usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt.saturating_add(completion),
        });
        if let Some(cached) = self.counts.cached {
            usage["prompt_tokens_details"] = json!({"cached_tokens": cached});
        }
        Some(usage)
    }
}

impl Writer for OpenAiWriter {
    fn piece(&mut self, delta: Delta, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        self.counts.learn(&delta.counts);
        self.finish = delta.finish.or(self.finish);
        if !std::mem::replace(&mut self.begun, true) {
            self.chunk(&json!({"role": "assistant", "content": ""}), None, out);
        }
        let mut said = Map::new();
        for (key, text) in [("reasoning_content", delta.thinking), ("content", delta.text)] {
            if !text.is_empty() {
                said.insert(key.to_owned(), text.into());
            }
        }
        if !delta.tools.is_empty() {
            said.insert(
                "tool_calls".to_owned(),
                delta.tools.into_iter().map(tool_piece).collect::<Vec<_>>().into(),
            );
        }
        if !said.is_empty() {
            self.chunk(&said.into(), None, out);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        self.chunk(&json!({}), Some(self.finish_reason()), out);
        if self.include_usage {
            self.write(Vec::new(), self.usage(), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        Ok(())
    }

    fn whole(&mut self, delta: Delta) -> Result<Value, AnswerFault> {
        self.counts.learn(&delta.counts);
        self.finish = delta.finish;
        let mut calls = ToolCalls::default();
        for piece in delta.tools {
            calls.add(piece)?;
        }
        let calls: Vec<Value> = calls
            .take()
            .into_iter()
            .map(|call| {
                let arguments = if call.arguments.is_empty() { "{}".to_owned() } else { call.arguments };
                let function = json!({"name": call.name, "arguments": arguments});
                json!({"id": call.id, "type": "function", "function": function})
            })
            .collect();
        let content =
            if delta.text.is_empty() && !calls.is_empty() { Value::Null } else { delta.text.into() };
        let mut message = json!({"role": "assistant", "content": content});
        if !delta.thinking.is_empty() {
            message["reasoning_content"] = delta.thinking.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        let mut answer = self.head("chat.completion");
        let choice = json!({"index": 0, "message": message, "finish_reason": self.finish_reason()});
        answer.insert("choices".to_owned(), vec![choice].into());
        if let Some(usage) = self.usage() {
            answer.insert("usage".to_owned(), usage);
        }
        Ok(answer.into())
    }
}

fn tool_piece(piece: ToolPiece) -> Value {
    let mut function = Map::new();
    let mut call = Map::from_iter([("index".to_owned(), Value::from(piece.index))]);
    if let Some(name) = piece.name {
        call.insert("id".to_owned(), piece.id.into());
        call.insert("type".to_owned(), "function".into());
        function.insert("name".to_owned(), name.into());
    }
    function.insert("arguments".to_owned(), piece.arguments.into());
    call.insert("function".to_owned(), function.into());
    call.into()
}
