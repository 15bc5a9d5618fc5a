//! The settings file as a JSON Schema, so that editors can complete and check it.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, PROVIDER_KEYS, PROVIDER_KINDS, ROUTE_KEYS, SettingKey};
use super::layers::SettingKind;

/// Generated from the table of keys, so that it cannot differ from what is read.
pub(super) fn json_schema() -> Value {
    let mut sections = Map::new();
    for key in KEYS {
        let section = sections.entry(key.section()).or_insert_with(|| closed_object(&Map::new()));
        section["properties"][key.name()] = property(key);
    }
    sections.insert("providers".to_owned(), json!({ "type": "object", "additionalProperties": provider() }));
    sections.insert("routes".to_owned(), json!({ "type": "object", "additionalProperties": route() }));
    let mut schema = closed_object(&sections);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Settings of a llama-orch home (config.toml)".into();
    schema
}

fn closed_object(properties: &Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn property(key: &SettingKey) -> Value {
    let mut property = match key.kind {
        SettingKind::Address | SettingKind::Text => json!({ "type": "string", "minLength": 1 }),
        SettingKind::Flag => json!({ "type": "boolean" }),
        SettingKind::Number { max } => json!({ "type": "integer", "minimum": 1, "maximum": max }),
        SettingKind::Choice(choices) => json!({ "enum": choices }),
        SettingKind::List => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
    };
    property["description"] = key.meaning.into();
    if let Some(default) = key.default {
        property["default"] = default_value(key.kind, default);
    }
    property
}

fn default_value(kind: SettingKind, default: &str) -> Value {
    match kind {
        SettingKind::Flag => (default == "true").into(),
        SettingKind::Number { .. } => default.parse::<u64>().map_or(Value::Null, Value::from),
        SettingKind::List => Value::Array(Vec::new()),
        SettingKind::Address | SettingKind::Text | SettingKind::Choice(_) => default.into(),
    }
}

fn provider() -> Value {
    let mut properties = Map::new();
    for (name, meaning) in PROVIDER_KEYS {
        let mut property = match *name {
            "kind" => json!({ "enum": PROVIDER_KINDS }),
            "models" => json!({ "type": "array", "items": { "type": "string" } }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        property["description"] = (*meaning).into();
        properties.insert((*name).to_owned(), property);
    }
    let mut provider = closed_object(&properties);
    provider["required"] = json!(["kind"]);
    provider
}

fn route() -> Value {
    let texts = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
    let mut properties = Map::new();
    for (name, meaning) in ROUTE_KEYS {
        let mut property = match *name {
            "set" | "default" => json!({ "type": "object" }),
            _ => texts.clone(),
        };
        property["description"] = (*meaning).into();
        properties.insert((*name).to_owned(), property);
    }
    closed_object(&properties)
}
