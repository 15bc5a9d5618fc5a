//! The text of a prompt as it lies in a request's body, in the order in which a model reads it.
//!
//! Two turns of one conversation have the same text up to where the first one ended, and so can be recognised as
//! kin. Their bytes need not be the same: field order and white space differ between clients, a message is a string
//! here and a list of parts there, and `cache_control` moves on with every turn. So only what a model reads counts:
//! the strings that are values, without their escapes resolved, because one client escapes alike in every turn.

use std::ops::ControlFlow;

use crate::json_fields::{BodyError, Next, Walk};

/// What is met on the way through a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptPiece<'b> {
    Text(&'b [u8]),
    /// A message of the conversation ends here, or the only prompt there is.
    MessageEnd,
}

/// The fields that make a prompt, in the order of the text. Templates put tools and instructions in front.
const FIELDS: [(&[u8], Holds); 6] = [
    (b"tools", Holds::Preface),
    (b"system", Holds::Preface),
    (b"instructions", Holds::Preface),
    (b"messages", Holds::Messages),
    (b"prompt", Holds::Messages),
    (b"input", Holds::Messages),
];

/// Members that a model does not read, or that say only how a message is written down.
const UNREAD: [&[u8]; 2] = [b"type", b"cache_control"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Preface,
    Messages,
}

/// Whether requests at this path hold a prompt of which an engine may have the beginning in its cache.
pub fn has_prompt(path: &str) -> bool {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    matches!(path, "/chat/completions" | "/completions" | "/completion" | "/messages" | "/responses")
}

/// Shows each piece of a prompt to `see`, until that breaks off. Of a body that is no JSON object nothing, or only
/// its beginning, is shown.
pub fn each_prompt_piece<'b>(body: &'b [u8], mut see: impl FnMut(PromptPiece<'b>) -> ControlFlow<()>) {
    let Ok(values) = find_fields(body) else { return };
    for ((_, holds), value) in FIELDS.iter().zip(values) {
        let Some(value) = value else { continue };
        if each_piece(value, *holds, &mut see).is_break() {
            return;
        }
    }
}

/// The raw value of each field; the last one counts if there are several, as in the engine's own parser.
fn find_fields(body: &[u8]) -> Result<[Option<&[u8]>; FIELDS.len()], BodyError> {
    let mut values = [None; FIELDS.len()];
    let mut walk = Walk { body, at: 0 };
    if walk.next_token() != Some(b'{') {
        return Err(BodyError::NotAnObject);
    }
    while walk.next_token() == Some(b'"') {
        let key = walk.string()?;
        if walk.next_token() != Some(b':') {
            return Err(BodyError::Malformed);
        }
        let start = walk.at;
        let next = walk.skip_to_member_end()?;
        if let Some(field) = FIELDS.iter().position(|(name, _)| *name == key) {
            values[field] = Some(&body[start..walk.at - 1]);
        }
        if next == Next::End {
            break;
        }
    }
    Ok(values)
}

fn each_piece<'b>(
    value: &'b [u8],
    holds: Holds,
    see: &mut impl FnMut(PromptPiece<'b>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut walk = Walk { body: value, at: 0 };
    let mut depth = 0_usize;
    while let Some(byte) = walk.next_token() {
        match byte {
            b'"' => {
                let Ok(text) = walk.string() else { return ControlFlow::Break(()) };
                if !walk.body[walk.at..].trim_ascii_start().starts_with(b":") {
                    see(PromptPiece::Text(text))?;
                } else if UNREAD.contains(&text) {
                    skip_value(&mut walk);
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 && holds == Holds::Messages => see(PromptPiece::MessageEnd)?,
            _ => {}
        }
    }
    if holds == Holds::Messages { see(PromptPiece::MessageEnd) } else { ControlFlow::Continue(()) }
}

/// Leaps over the value behind a key.
fn skip_value(walk: &mut Walk<'_>) {
    let mut depth = 0_usize;
    // The colon comes first.
    walk.next_token();
    while let Some(byte) = walk.next_token() {
        match byte {
            b'"' if walk.string().is_err() => return,
            b'[' | b'{' => depth += 1,
            // Numbers and words: they show nothing, the caller passes over what is left of them.
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pieces(body: &str) -> Vec<String> {
        let mut all = Vec::new();
        each_prompt_piece(body.as_bytes(), |piece| {
            all.push(match piece {
                PromptPiece::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                PromptPiece::MessageEnd => "|".to_owned(),
            });
            ControlFlow::Continue(())
        });
        all
    }

    #[test]
    fn a_conversation_is_read_in_the_order_of_the_template() {
        let body = r#"{"messages":[{"role":"user","content":"hi \"you\""},{"role":"assistant","content":null}],
            "temperature":0.5,"system":"be kind","model":"m","tools":[{"type":"function","function":{"name":"f"}}]}"#;
        assert_eq!(pieces(body), ["f", "be kind", "user", "hi \\\"you\\\"", "|", "assistant", "|"]);
        assert_eq!(pieces(r#"{"prompt":"once upon"}"#), ["once upon", "|"]);
        assert_eq!(pieces(r#"{"instructions":"i","input":[{"role":"user"}]}"#), ["i", "user", "|"]);
    }

    #[test]
    fn how_a_message_is_written_down_does_not_matter() {
        let plain = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
        let parts = r#"{ "messages" : [ { "role" : "user", "content" : [ {"type": "text", "text": "hi",
            "cache_control": {"type": "ephemeral", "ttl": ["5m"]} } ] } ] }"#;
        assert_eq!(pieces(plain), pieces(parts));
        assert_eq!(pieces(r#"{"messages":[{"type":3,"content":"a"}]}"#), ["a", "|"]);
    }

    #[test]
    fn nothing_is_read_off_what_is_no_request() {
        for body in ["", "[]", "{", "{\"messages\"", "{\"messages\":[\"a", "\"messages\""] {
            assert!(pieces(body).is_empty(), "{body}");
        }
    }

    #[test]
    fn it_stops_when_it_is_told_to() {
        let mut seen = 0;
        each_prompt_piece(br#"{"system":"a","prompt":"b"}"#, |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn only_generating_from_a_prompt_has_one() {
        for (path, expected) in [
            ("/v1/chat/completions", true),
            ("/v1/messages", true),
            ("/completion", true),
            ("/v1/embeddings", false),
            ("/v1/messages/count_tokens", false),
            ("/tokenize", false),
        ] {
            assert_eq!(has_prompt(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_longer_conversation_begins_with_the_shorter_one(texts in prop::collection::vec(".{0,20}", 1..6), cut in 0_usize..6) {
            let body = |texts: &[String]| {
                let messages: Vec<_> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
                json!({"stream": true, "messages": messages}).to_string()
            };
            let cut = cut.min(texts.len());
            let (short, long) = (pieces(&body(&texts[..cut])), pieces(&body(&texts)));
            // An empty conversation has an end, but no message before it.
            prop_assert!(cut == 0 || long.starts_with(&short));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in "[\\[\\]{}\":,\\\\a]{0,40}") {
            pieces(&format!("{{\"messages\":{bytes}"));
            pieces(&format!("{{\"messages\":[{bytes}]}}"));
            pieces(&bytes);
        }
    }
}
