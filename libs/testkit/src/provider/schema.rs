//! A value that fits a JSON Schema, for answers that must.

use serde_json::{Map, Value, json};

/// The plainest value that fits; `word` fills its strings.
pub(crate) fn instance(schema: &Value, word: &str) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(key).and_then(|variants| variants.get(0)) {
            return instance(first, word);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
        kind => kind.as_str().unwrap_or(if schema.get("properties").is_some() { "object" } else { "string" }),
    };
    match kind {
        "object" => object(schema, word),
        "array" => {
            let count = schema["minItems"].as_u64().unwrap_or(1).min(100);
            (0..count).map(|_| instance(&schema["items"], word)).collect()
        }
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => json!(word),
    }
}

fn object(schema: &Value, word: &str) -> Value {
    let mut made = Map::new();
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        made.insert(name.clone(), instance(inner, word));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        made.entry(name).or_insert_with(|| json!(word));
    }
    made.into()
}
