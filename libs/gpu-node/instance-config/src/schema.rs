//! The JSON Schema of the format, made from the table.

use serde_json::{Map, Value, json};

use crate::field::{FIELDS, Field, Preset};
use crate::kind::Kind;

/// The strict form, draft 2020-12: for editors, and for whoever writes configs by program.
pub fn json_schema() -> Value {
    let mut properties = Map::new();
    for field in FIELDS {
        match field.parts() {
            (None, key) => {
                properties.insert(key.to_owned(), property(field));
            }
            (Some(section), key) => add_to_section(&mut properties, section, key, field),
        }
    }
    let mut required: Vec<&str> =
        FIELDS.iter().filter(|field| is_required(field)).map(top_level_key).collect();
    required.dedup();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llama-orch instance",
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

fn add_to_section(properties: &mut Map<String, Value>, section: &str, key: &str, field: &Field) {
    let entry =
        properties.entry(section).or_insert_with(|| json!({"type": ["object", "null"], "properties": {}}));
    entry["properties"][key] = property(field);
    if is_required(field) {
        entry["type"] = json!("object");
        entry["required"] = json!([key]);
    }
}

fn is_required(field: &Field) -> bool {
    matches!(field.preset, Preset::Required)
}

fn top_level_key(field: &Field) -> &'static str {
    let (section, key) = field.parts();
    section.unwrap_or(key)
}

fn property(field: &Field) -> Value {
    let mut shape = shape(field.kind);
    if !is_required(field) {
        allow_null(&mut shape);
    }
    shape["description"] = json!(field.meaning);
    if let Some(default) = field.default_value() {
        shape["default"] = default;
    }
    shape
}

/// Null is the absent value.
fn allow_null(shape: &mut Value) {
    match shape.get_mut("type") {
        Some(Value::String(word)) => shape["type"] = json!([word, "null"]),
        Some(Value::Array(words)) => words.push(json!("null")),
        _ => {}
    }
    if let Some(words) = shape.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
}

const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$";

fn shape(kind: Kind) -> Value {
    let text_list = |item: Value| json!({"type": "array", "items": item});
    match kind {
        Kind::Name => json!({"type": "string", "pattern": NAME_PATTERN, "not": {"enum": ["all", "clean"]}}),
        Kind::Text | Kind::Host => json!({"type": "string"}),
        Kind::LogTemplate => json!({"type": "string", "minLength": 1}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Moment => json!({"type": "string", "format": "date-time"}),
        Kind::SerialNumber => json!({"type": "string", "pattern": "^[0-9]{8}$"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Integer { min, max } | Kind::NullableInteger { min, max } => {
            json!({"type": "integer", "minimum": min, "maximum": max})
        }
        Kind::Number { min, max } | Kind::Seconds { min, max } => {
            json!({"type": "number", "minimum": min, "maximum": max})
        }
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::Port => json!({
            "type": "integer",
            "anyOf": [{"const": 0}, {"minimum": 1024, "maximum": 65_535}],
        }),
        Kind::HttpPath => json!({"type": "string", "pattern": "^/[^\\s]*$"}),
        Kind::ModelPath => json!({"type": "string", "pattern": "(\\.[gG][gG][uU][fF]$)|(^[hH][fF]:)"}),
        Kind::Tags => text_list(json!({"type": "string", "pattern": NAME_PATTERN})),
        Kind::Alias => {
            text_list(json!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^\\S+$"}))
        }
        Kind::Arguments => text_list(json!({"type": "string"})),
        Kind::Environment => json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
        Kind::Statuses => json!({
            "type": ["integer", "array"], "minimum": 100, "maximum": 599,
            "items": {"type": "integer", "minimum": 100, "maximum": 599}, "minItems": 1,
        }),
        Kind::Replicas { max } => json!({
            "type": ["integer", "string"], "minimum": 1, "maximum": max, "pattern": "^per_device$",
        }),
        Kind::Anything => json!({}),
    }
}
