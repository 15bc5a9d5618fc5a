//! Changing fields of a request's body, where a route says so. A body that nothing changes is passed on byte for
//! byte.

use bytes::Bytes;
use llm_adapters::Problem;
use orch_core::ErrorCode;
use serde_json::{Map, Value};

/// What a route changes in the body of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    /// Fields that every request gets; objects are merged, null takes a field away (RFC 7396).
    pub set: Map<String, Value>,
    /// Fields for requests that leave them out.
    pub default: Map<String, Value>,
    /// Fields that are taken out.
    pub strip: Vec<String>,
}

impl Rewrite {
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.default.is_empty() && self.strip.is_empty()
    }

    /// The body as it goes out: with these changes, and under another model's name where one is given. Bodies that
    /// are no JSON objects cannot be changed; one that has to be is refused.
    pub(crate) fn apply(&self, body: &Bytes, model: Option<&str>) -> Result<Bytes, Problem> {
        if (self.is_empty() && model.is_none()) || body.is_empty() {
            return Ok(body.clone());
        }
        let unmarked = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut fields: Map<String, Value> = serde_json::from_slice(unmarked).map_err(|error| {
            let message =
                format!("the route of this model changes the body, which is no JSON object: {error}");
            Problem::new(ErrorCode::InvalidParams, message)
        })?;
        fields.retain(|name, _| !self.strip.contains(name));
        for (name, value) in &self.default {
            if fields.get(name).is_none_or(Value::is_null) {
                fields.insert(name.clone(), value.clone());
            }
        }
        merge(&mut fields, &self.set);
        if let Some(model) = model {
            fields.insert("model".to_owned(), model.into());
        }
        let text = serde_json::to_vec(&fields).map_err(|error| {
            Problem::new(ErrorCode::Internal, format!("a body cannot be written: {error}"))
        })?;
        Ok(text.into())
    }
}

/// RFC 7396. The depth is that of the patch, which a user wrote into the settings.
fn merge(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.shift_remove(name)),
            Value::Object(inner) => {
                let place = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(place) = place {
                    merge(place, inner);
                }
            }
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn rewrite() -> Rewrite {
        Rewrite {
            set: map(
                json!({"temperature": 0.2, "chat_template_kwargs": {"enable_thinking": false}, "gone": null}),
            ),
            default: map(json!({"max_tokens": 64, "seed": 1})),
            strip: vec!["logit_bias".to_owned()],
        }
    }

    #[test]
    fn fields_are_set_given_a_default_and_taken_out_in_the_order_of_the_body() {
        let body = Bytes::from_static(
            br#"{"model":"fast","temperature":1,"logit_bias":{},"chat_template_kwargs":{"a":1},"gone":1,"seed":7,"max_tokens":null}"#,
        );
        let changed = rewrite().apply(&body, None).unwrap();
        assert_eq!(
            std::str::from_utf8(&changed).unwrap(),
            r#"{"model":"fast","temperature":0.2,"chat_template_kwargs":{"a":1,"enable_thinking":false},"seed":7,"max_tokens":64}"#
        );
    }

    #[test]
    fn a_body_that_nothing_changes_stays_byte_for_byte() {
        let body = Bytes::from_static(b"{ \"model\" :\"a\"}");
        assert_eq!(Rewrite::default().apply(&body, None).unwrap(), body);
        let renamed = Rewrite::default().apply(&body, Some("b")).unwrap();
        assert_eq!(&renamed[..], br#"{"model":"b"}"#);
    }

    #[test]
    fn a_body_that_cannot_be_changed_is_refused_only_where_it_would_have_to_be() {
        let body = Bytes::from_static(b"--boundary");
        assert_eq!(rewrite().apply(&body, None).unwrap_err().code, ErrorCode::InvalidParams);
        assert_eq!(Rewrite::default().apply(&body, None).unwrap(), body);
        assert_eq!(rewrite().apply(&Bytes::new(), None).unwrap(), Bytes::new());
    }
}
