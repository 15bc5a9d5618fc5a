//! The text of an answer, in whatever dialect and however it was sent.

use serde_json::Value;

/// All generated text of a whole answer, of a stream of events, or of JSON lines; what it thought before included. An
/// answer that is none of these is its own text.
pub(crate) fn answer_text(answer: &str) -> String {
    if let Ok(whole) = serde_json::from_str::<Value>(answer) {
        return text_of(&whole);
    }
    let mut text = String::new();
    let mut is_stream = false;
    for line in answer.lines() {
        let data = line.strip_prefix("data:").unwrap_or(line).trim();
        if let Ok(event) = serde_json::from_str::<Value>(data) {
            is_stream = true;
            // The end of an event stream repeats the whole text.
            if !event["type"].as_str().is_some_and(|kind| REPEATS.contains(&kind)) {
                text.push_str(&text_of(&event));
            }
        }
    }
    if is_stream { text } else { answer.to_owned() }
}

/// Events of OpenAI's responses that tell again what came in pieces.
const REPEATS: [&str; 7] = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.done",
    "response.output_text.done",
    "response.completed",
];

fn text_of(value: &Value) -> String {
    let mut text = String::new();
    let mut add = |value: &Value| text.push_str(value.as_str().unwrap_or_default());
    // OpenAI's chats and completions.
    for choice in list(&value["choices"]) {
        for message in [&choice["message"], &choice["delta"]] {
            add(&message["reasoning_content"]);
            add(&message["content"]);
        }
        add(&choice["text"]);
    }
    // OpenAI's responses.
    for part in list(&value["output"]).iter().flat_map(|item| list(&item["content"])) {
        add(&part["text"]);
    }
    // A piece of those, and Anthropic's pieces.
    add(&value["delta"]);
    add(&value["delta"]["thinking"]);
    add(&value["delta"]["text"]);
    // Anthropic's messages, and llama-server's own completions.
    for block in list(&value["content"]) {
        add(&block["thinking"]);
        add(&block["text"]);
    }
    add(&value["content"]);
    // Ollama's.
    add(&value["message"]["thinking"]);
    add(&value["message"]["content"]);
    add(&value["response"]);
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_whole_or_in_pieces_in_every_dialect() {
        for answer in [
            r#"{"choices":[{"message":{"role":"assistant","content":"Hello"}}]}"#,
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n: wait\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\ndata: [DONE]\n\n",
            r#"{"choices":[{"text":"Hello"}]}"#,
            r#"{"type":"message","content":[{"type":"text","text":"Hello"}]}"#,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n",
            r#"{"output":[{"content":[{"type":"output_text","text":"Hello"}]}]}"#,
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[]},\"output\":[{\"content\":[{\"text\":\"Hello\"}]}]}\n\n",
            r#"{"content":"Hello","timings":{}}"#,
            "{\"message\":{\"content\":\"Hel\"},\"done\":false}\n{\"message\":{\"content\":\"lo\"},\"done\":true}\n",
            "{\"response\":\"Hello\"}\n",
            "Hello",
        ] {
            assert_eq!(answer_text(answer), "Hello", "{answer}");
        }
        assert_eq!(answer_text(r#"{"data":[{"embedding":[1]}]}"#), "");
    }
}
