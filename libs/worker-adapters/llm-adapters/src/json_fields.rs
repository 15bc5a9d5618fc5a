//! Finding `model`, `stream` and the like in a request body without parsing the rest.
//!
//! A chat request may hold megabytes of pictures as text. Building a tree of it only to read one name would
//! cost more than everything else the gateway does, so the top level is walked with a string search that
//! leaps over each string; nothing is allocated and nothing recurses.

use std::borrow::Cow;

use memchr::memchr2;

/// Why no model can be read off a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body is not valid JSON")]
    Malformed,
    #[error("`model` must be a string")]
    ModelNotText,
}

/// What routing needs of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFields<'a> {
    /// `model`; `None` where it is absent or null.
    pub model: Option<Cow<'a, str>>,
    /// `stream`; `None` where it is absent or no boolean.
    pub stream: Option<bool>,
    /// The most tokens that the answer may have, under whatever name a dialect gives it; `None` where it is absent
    /// or no whole number.
    pub max_tokens: Option<u64>,
}

/// How the dialects call the most tokens that an answer may have.
const MAX_TOKENS: [&str; 4] = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"];

/// The top-level fields of a body that routing needs. As in the engine's own parser the last one counts if there
/// are several of a name.
pub fn fields_in_json(body: &[u8]) -> Result<BodyFields<'_>, BodyError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut walk = Walk { body, at: 0 };
    if walk.next_token() != Some(b'{') {
        return Err(BodyError::NotAnObject);
    }
    let mut fields = BodyFields::default();
    loop {
        match walk.next_token() {
            Some(b'"') => {
                let key = walk.string()?;
                if walk.next_token() != Some(b':') {
                    return Err(BodyError::Malformed);
                }
                if is_key(key, "model") {
                    fields.model = walk.model_value()?;
                } else if is_key(key, "stream") {
                    fields.stream = walk.boolean();
                } else if MAX_TOKENS.iter().any(|name| is_key(key, name)) {
                    fields.max_tokens = walk.number().or(fields.max_tokens);
                }
                if walk.skip_to_member_end()? == Next::End {
                    return Ok(fields);
                }
            }
            Some(b'}') => return Ok(fields),
            _ => return Err(BodyError::Malformed),
        }
    }
}

#[derive(PartialEq, Eq)]
pub(crate) enum Next {
    Member,
    End,
}

/// A walk over JSON that leaps over what it need not see.
pub(crate) struct Walk<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Walk<'a> {
    /// The next byte that is not white space; the walk stands behind it.
    pub(crate) fn next_token(&mut self) -> Option<u8> {
        while let Some(&byte) = self.body.get(self.at) {
            self.at += 1;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
        }
        None
    }

    /// The raw inside of a string whose opening quote was just passed.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], BodyError> {
        let start = self.at;
        loop {
            let rest = self.body.get(self.at..).ok_or(BodyError::Malformed)?;
            let found = memchr2(b'"', b'\\', rest).ok_or(BodyError::Malformed)?;
            if rest[found] == b'"' {
                let inside = &self.body[start..self.at + found];
                self.at += found + 1;
                return Ok(inside);
            }
            self.at += found + 2;
        }
    }

    /// The value of `model`; the walk ends behind a string and before anything else.
    fn model_value(&mut self) -> Result<Option<Cow<'a, str>>, BodyError> {
        match self.next_token() {
            Some(b'"') => self.string().and_then(text).map(Some),
            Some(b'n') => Ok(None),
            _ => Err(BodyError::ModelNotText),
        }
    }

    /// A boolean that may come next; the walk stays where it is.
    fn boolean(&self) -> Option<bool> {
        let rest = self.body.get(self.at..)?.trim_ascii_start();
        let known = [(&b"true"[..], true), (&b"false"[..], false)];
        known.iter().find(|(word, _)| rest.starts_with(word)).map(|(_, value)| *value)
    }

    /// A whole number that may come next; the walk stays where it is.
    fn number(&self) -> Option<u64> {
        let rest = self.body.get(self.at..)?.trim_ascii_start();
        let ends = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let is_whole = matches!(rest[ends], b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        std::str::from_utf8(&rest[..ends]).ok().filter(|_| is_whole)?.parse().ok()
    }

    /// Leaps over the rest of a value, to behind the comma or the closing brace that follows it.
    pub(crate) fn skip_to_member_end(&mut self) -> Result<Next, BodyError> {
        let mut depth = 0_usize;
        loop {
            let byte = *self.body.get(self.at).ok_or(BodyError::Malformed)?;
            self.at += 1;
            match byte {
                b'"' => drop(self.string()?),
                b'{' | b'[' => depth += 1,
                b'}' if depth == 0 => return Ok(Next::End),
                b',' if depth == 0 => return Ok(Next::Member),
                b'}' | b']' => depth = depth.checked_sub(1).ok_or(BodyError::Malformed)?,
                _ => {}
            }
        }
    }
}

fn is_key(key: &[u8], name: &str) -> bool {
    key == name.as_bytes() || (key.contains(&b'\\') && text(key).is_ok_and(|key| key == name))
}

/// The text of a raw string, with its escapes resolved.
fn text(raw: &[u8]) -> Result<Cow<'_, str>, BodyError> {
    let raw = std::str::from_utf8(raw).map_err(|_| BodyError::Malformed)?;
    if raw.contains('\\') {
        let unescaped = serde_json::from_str(&format!("\"{raw}\"")).map_err(|_| BodyError::Malformed)?;
        return Ok(Cow::Owned(unescaped));
    }
    Ok(Cow::Borrowed(raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn model(body: &str) -> Result<Option<String>, BodyError> {
        fields_in_json(body.as_bytes()).map(|fields| fields.model.map(Cow::into_owned))
    }

    #[test]
    fn stream_is_read_where_it_is_a_boolean_of_the_top_level() {
        for (body, expected) in [
            (r#"{"stream": true}"#, Some(true)),
            (r#"{"stream":false,"model":"a"}"#, Some(false)),
            (r#"{"model":"a","x":{"stream":true}}"#, None),
            (r#"{"stream":"true"}"#, None),
            (r#"{"stream":null}"#, None),
            (r#"{"stream":true,"stream":false}"#, Some(false)),
        ] {
            assert_eq!(fields_in_json(body.as_bytes()).unwrap().stream, expected, "{body}");
        }
    }

    #[test]
    fn the_most_tokens_of_an_answer_are_read_under_each_of_their_names() {
        for (body, expected) in [
            (r#"{"max_tokens": 7 }"#, Some(7)),
            (r#"{"max_completion_tokens":8,"max_tokens":null}"#, Some(8)),
            (r#"{"max_output_tokens":9}"#, Some(9)),
            (r#"{"n_predict":10,"model":"a"}"#, Some(10)),
            (r#"{"n_predict":-1}"#, None),
            (r#"{"max_tokens":1.5}"#, None),
            (r#"{"max_tokens":"7"}"#, None),
            (r#"{"max_tokens":99999999999999999999999}"#, None),
            (r#"{"options":{"max_tokens":7}}"#, None),
        ] {
            assert_eq!(fields_in_json(body.as_bytes()).unwrap().max_tokens, expected, "{body}");
        }
    }

    #[test]
    fn only_the_top_level_field_counts() {
        let body = r#"{"messages":[{"model":"inner","content":"\"model\":\"quoted\""}], "model" : "chat"}"#;
        assert_eq!(model(body), Ok(Some("chat".to_owned())));
        assert_eq!(model(r#"{"messages":[{"model":"inner"}]}"#), Ok(None));
        assert_eq!(model("{}"), Ok(None));
        assert_eq!(model(r#"{"model":null,"n":1}"#), Ok(None));
    }

    #[test]
    fn escapes_are_resolved_in_names_and_values() {
        assert_eq!(model(r#"{"mod\u0065l":"a\u002fb"}"#), Ok(Some("a/b".to_owned())));
        assert_eq!(model(r#"{"x":"\\","model":"ünïcode"}"#), Ok(Some("ünïcode".to_owned())));
    }

    #[test]
    fn the_last_of_several_counts_as_in_the_engine() {
        assert_eq!(model(r#"{"model":"a","model":"b"}"#), Ok(Some("b".to_owned())));
    }

    #[test]
    fn bodies_that_cannot_name_a_model_say_why() {
        assert_eq!(model(""), Err(BodyError::NotAnObject));
        assert_eq!(model("[1]"), Err(BodyError::NotAnObject));
        for cut in
            [r#"{"model":"#, r#"{"model":"a"#, r#"{"model":"a""#, r#"{"a":[1}"#, r#"{"a" 1}"#, "{\"a\":\"\\"]
        {
            assert!(model(cut).is_err(), "{cut}");
        }
        assert_eq!(model(r#"{"model":3}"#), Err(BodyError::ModelNotText));
        assert_eq!(model(r#"{"model":{"a":1}}"#), Err(BodyError::ModelNotText));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![Just("model".to_owned()), ".{0,8}"]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_full_parser(members in prop::collection::vec((key(), json_value()), 0..6), pretty: bool) {
            let value = Value::Object(members.into_iter().collect());
            let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let expected = match &value["model"] {
                Value::Null => Ok(None),
                Value::String(name) => Ok(Some(name.clone())),
                _ => Err(BodyError::ModelNotText),
            };
            prop_assert_eq!(fields_in_json(&body).map(|fields| fields.model.map(Cow::into_owned)), expected);
        }

        #[test]
        fn hostile_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fields_in_json(&body);
            let mut framed = b"{\"model\":".to_vec();
            framed.extend(&body);
            let _ = fields_in_json(&framed);
        }
    }
}
