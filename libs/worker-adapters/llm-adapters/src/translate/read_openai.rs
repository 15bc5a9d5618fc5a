//! Reading OpenAI's answers: chat completions, completions, and llama-server's own `/infill`.

use serde_json::Value;

use super::answer::{AnswerFault, Reader, parsed};
use super::delta::{Counts, Delta, Finish, ToolPiece, text_in};
use super::event_reader::Event;

/// Longest word of the other side's that is repeated to a client.
const SHOWN: usize = 500;

#[derive(Debug, Default)]
pub struct OpenAiReader {
    finished: bool,
}

impl Reader for OpenAiReader {
    fn event(&mut self, event: Event) -> Result<Option<Delta>, AnswerFault> {
        if event.data.trim_ascii() == b"[DONE]" {
            return if self.finished { Ok(None) } else { Err(AnswerFault::Incomplete) };
        }
        let delta = read(parsed(&event.data)?)?;
        self.finished |= delta.finish.is_some();
        Ok(Some(delta))
    }

    // Not every provider says [DONE].
    fn is_complete(&self) -> bool {
        self.finished
    }

    fn whole(&mut self, body: Value) -> Result<Delta, AnswerFault> {
        let delta = read(body)?;
        if delta.finish.is_none() {
            return Err(AnswerFault::Malformed("it does not say why it ended"));
        }
        Ok(delta)
    }
}

fn read(mut body: Value) -> Result<Delta, AnswerFault> {
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        return Err(AnswerFault::BrokenOff(said(error)));
    }
    if !body.is_object() {
        return Err(AnswerFault::Malformed("no JSON object"));
    }
    let mut delta = Delta { counts: counts(&body), ..Delta::default() };
    if let Some(content) = body.get_mut("content") {
        delta.text = text_in(content);
        delta.finish = native_finish(&body);
        return Ok(delta);
    }
    let Some(choices) = body.get_mut("choices").and_then(Value::as_array_mut) else {
        return Err(AnswerFault::Malformed("no choices"));
    };
    // The chunk with the usage has none.
    if let Some(choice) = choices.first_mut() {
        read_choice(choice, &mut delta)?;
    }
    Ok(delta)
}

fn read_choice(choice: &mut Value, delta: &mut Delta) -> Result<(), AnswerFault> {
    delta.finish = match choice.get("finish_reason").and_then(Value::as_str) {
        None => None,
        Some("length") => Some(Finish::Length),
        Some("tool_calls" | "function_call") => Some(Finish::ToolCalls),
        Some("content_filter") => Some(Finish::Filtered),
        Some(_) => Some(Finish::Stop),
    };
    if let Some(text) = choice.get_mut("text") {
        delta.text = text_in(text);
    }
    let key = if choice.get("delta").is_some() { "delta" } else { "message" };
    let Some(message) = choice.get_mut(key).and_then(Value::as_object_mut) else { return Ok(()) };
    if let Some(content) = message.get_mut("content") {
        delta.text = text_in(content);
    }
    // Servers do not agree on what to call it; none says both.
    for key in ["reasoning_content", "reasoning"] {
        if let Some(thinking) = message.get_mut(key) {
            delta.thinking.push_str(&text_in(thinking));
        }
    }
    let calls = message.get_mut("tool_calls").map(Value::take);
    let Some(Value::Array(calls)) = calls else { return Ok(()) };
    for (place, call) in calls.into_iter().enumerate() {
        delta.tools.push(tool_piece(call, place)?);
    }
    Ok(())
}

/// Whole answers do not number their calls.
fn tool_piece(mut call: Value, place: usize) -> Result<ToolPiece, AnswerFault> {
    if !call.is_object() {
        return Err(AnswerFault::Malformed("a tool call that is none"));
    }
    let index = call.get("index").and_then(Value::as_u64).map_or(place, |index| index as usize);
    let id = call.get_mut("id").map(text_in).filter(|id| !id.is_empty());
    let function = call.get_mut("function").and_then(Value::as_object_mut);
    let (mut name, mut arguments) = (None, String::new());
    if let Some(function) = function {
        name = function.get_mut("name").map(text_in).filter(|name| !name.is_empty());
        arguments = function.get_mut("arguments").map(text_in).unwrap_or_default();
    }
    Ok(ToolPiece { index, id, name, arguments })
}

/// llama-server's own endpoints say `stop` in the last piece, and `stop_type` why.
fn native_finish(body: &Value) -> Option<Finish> {
    let stopped = body.get("stop").and_then(Value::as_bool).unwrap_or_default();
    let limited = body.get("stop_type").and_then(Value::as_str) == Some("limit");
    stopped.then_some(if limited { Finish::Length } else { Finish::Stop })
}

fn counts(body: &Value) -> Counts {
    let (usage, timings) = (&body["usage"], &body["timings"]);
    let whole = |value: &Value| value.as_u64();
    let cached = whole(&usage["prompt_tokens_details"]["cached_tokens"]).or(whole(&timings["cache_n"]));
    let timed_prompt =
        whole(&timings["prompt_n"]).map(|fresh| fresh.saturating_add(cached.unwrap_or_default()));
    Counts {
        prompt: whole(&usage["prompt_tokens"]).or(timed_prompt),
        completion: whole(&usage["completion_tokens"]).or(whole(&timings["predicted_n"])),
        cached,
        prompt_ms: timings["prompt_ms"].as_f64(),
        decode_ms: timings["predicted_ms"].as_f64(),
    }
}

/// What an error says, shortened.
pub(super) fn said(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_that_no_engine_can_mean_stay_numbers() {
        let told = counts(&json!({"timings": {"prompt_n": u64::MAX, "cache_n": 5}}));
        assert_eq!(told.prompt, Some(u64::MAX));
    }
}
