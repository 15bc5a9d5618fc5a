//! Writing Ollama's answers: a line of JSON for each piece, and a last one with counts and times.
//!
//! Times are the engine's own, in nanoseconds. What the engine did not tell is left out.

use serde_json::{Map, Value, json};

use super::answer::{AnswerFault, Writer};
use super::delta::{Counts, Delta, Finish};
use super::tool_calls::ToolCalls;
use super::{About, OllamaShape};

#[derive(Debug)]
pub(super) struct OllamaWriter {
    about: About,
    shape: OllamaShape,
    calls: ToolCalls,
    counts: Counts,
    finish: Option<Finish>,
}

impl OllamaWriter {
    pub(super) fn new(about: &About, shape: OllamaShape) -> Self {
        let about = about.clone();
        Self { about, shape, calls: ToolCalls::default(), counts: Counts::default(), finish: None }
    }

    /// Keeps what is told at the end and gives the rest.
    fn absorb(&mut self, delta: Delta) -> Result<(String, String), AnswerFault> {
        self.counts.learn(&delta.counts);
        self.finish = delta.finish.or(self.finish);
        for piece in delta.tools {
            self.calls.add(piece)?;
        }
        Ok((delta.text, delta.thinking))
    }

    /// The finished calls of tools. Ollama's arguments are objects, so a call that was cut off at the token limit
    /// cannot be told; `done_reason` says why it is missing.
    fn tool_calls(&mut self) -> Result<Vec<Value>, AnswerFault> {
        let mut calls = Vec::new();
        for (index, call) in self.calls.take().into_iter().enumerate() {
            match call.object() {
                Some(arguments) => calls.push(json!({
                    "id": call.id,
                    "function": {"index": index, "name": call.name, "arguments": arguments},
                })),
                None if self.finish == Some(Finish::Length) => {}
                None => return Err(AnswerFault::Malformed("arguments of a tool that are no JSON object")),
            }
        }
        Ok(calls)
    }

    fn answer(&self, text: String, thinking: String, calls: Vec<Value>) -> Map<String, Value> {
        let mut answer = head(&self.about);
        let mut said = Map::new();
        if self.shape == OllamaShape::Chat {
            said.insert("role".to_owned(), "assistant".into());
            said.insert("content".to_owned(), text.into());
        } else {
            said.insert("response".to_owned(), text.into());
        }
        if !thinking.is_empty() {
            said.insert("thinking".to_owned(), thinking.into());
        }
        if !calls.is_empty() {
            said.insert("tool_calls".to_owned(), calls.into());
        }
        if self.shape == OllamaShape::Chat {
            answer.insert("message".to_owned(), said.into());
        } else {
            answer.append(&mut said);
        }
        answer.insert("done".to_owned(), false.into());
        answer
    }

    fn close(&self, answer: &mut Map<String, Value>) {
        let reason = if self.finish == Some(Finish::Length) { "length" } else { "stop" };
        answer.insert("done".to_owned(), true.into());
        answer.insert("done_reason".to_owned(), reason.into());
        durations(answer, &self.about, &self.counts);
        for (key, count) in
            [("prompt_eval_count", self.counts.prompt), ("eval_count", self.counts.completion)]
        {
            if let Some(count) = count {
                answer.insert(key.to_owned(), count.into());
            }
        }
    }
}

impl Writer for OllamaWriter {
    fn piece(&mut self, delta: Delta, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        let (text, thinking) = self.absorb(delta)?;
        if !text.is_empty() || !thinking.is_empty() {
            write_line(out, &self.answer(text, thinking, Vec::new()));
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        let calls = self.tool_calls()?;
        if !calls.is_empty() {
            write_line(out, &self.answer(String::new(), String::new(), calls));
        }
        let mut last = self.answer(String::new(), String::new(), Vec::new());
        self.close(&mut last);
        write_line(out, &last);
        Ok(())
    }

    fn whole(&mut self, delta: Delta) -> Result<Value, AnswerFault> {
        let (text, thinking) = self.absorb(delta)?;
        let calls = self.tool_calls()?;
        let mut answer = self.answer(text, thinking, calls);
        self.close(&mut answer);
        Ok(answer.into())
    }
}

/// The answer to `/api/embed`.
pub(super) fn embeddings(mut body: Value, about: &About) -> Result<Value, AnswerFault> {
    const MALFORMED: AnswerFault = AnswerFault::Malformed("no list of embeddings");
    let prompt = body["usage"]["prompt_tokens"].as_u64();
    let data = body.get_mut("data").and_then(Value::as_array_mut).ok_or(MALFORMED)?;
    // In the order of the inputs, whatever order they came in.
    data.sort_by_key(|item| item["index"].as_u64());
    let mut vectors = Vec::with_capacity(data.len());
    for item in data {
        let vector = item.get_mut("embedding").map(Value::take).filter(Value::is_array);
        vectors.push(vector.ok_or(MALFORMED)?);
    }
    let mut answer = Map::from_iter([("model".to_owned(), Value::from(about.model.clone()))]);
    answer.insert("embeddings".to_owned(), vectors.into());
    durations(&mut answer, about, &Counts::default());
    if let Some(prompt) = prompt {
        answer.insert("prompt_eval_count".to_owned(), prompt.into());
    }
    Ok(answer.into())
}

/// The answer to a request that only asks for the model to be loaded: whoever answered, it is.
pub(super) fn loaded(about: &About, shape: OllamaShape) -> Value {
    let mut answer = head(about);
    match shape {
        OllamaShape::Chat => answer.insert("message".to_owned(), json!({"role": "assistant", "content": ""})),
        OllamaShape::Generate => answer.insert("response".to_owned(), "".into()),
    };
    answer.insert("done".to_owned(), true.into());
    answer.insert("done_reason".to_owned(), "load".into());
    answer.into()
}

fn head(about: &About) -> Map<String, Value> {
    Map::from_iter([
        ("model".to_owned(), Value::from(about.model.clone())),
        ("created_at".to_owned(), about.began.to_rfc3339().into()),
    ])
}

/// All, waiting for the model, reading the prompt and generating.
fn durations(answer: &mut Map<String, Value>, about: &About, counts: &Counts) {
    let waited = u64::try_from(about.waited.as_nanos()).unwrap_or(u64::MAX);
    let (prompt, decode) = (counts.prompt_ms.map(nanos), counts.decode_ms.map(nanos));
    let total = prompt.zip(decode).map(|(prompt, decode)| waited.saturating_add(prompt + decode));
    for (key, value) in [
        ("total_duration", total),
        ("load_duration", Some(waited)),
        ("prompt_eval_duration", prompt),
        ("eval_duration", decode),
    ] {
        if let Some(value) = value {
            answer.insert(key.to_owned(), value.into());
        }
    }
}

/// No more than a century, whatever the engine says: sums of them stay in range.
fn nanos(millis: f64) -> u64 {
    (millis * 1e6).clamp(0.0, 3.2e18) as u64
}

fn write_line(out: &mut Vec<u8>, line: &Map<String, Value>) {
    serde_json::to_writer(&mut *out, line).expect("a map of values is always JSON, and a vector takes all");
    out.push(b'\n');
}
