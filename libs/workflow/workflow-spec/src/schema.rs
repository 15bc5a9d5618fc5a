//! The published JSON Schema, made from the table of keys that the reader uses.

use serde_json::{Map, Value, json};

use crate::keys::{Holds, SIX_FIELDS, SPEC, Section};

/// The JSON Schema (2020-12) of a workflow: what an editor checks. The reader checks more, such as names and needs.
pub fn job_schema() -> Value {
    let mut definitions = Map::new();
    define(&SPEC, &mut definitions);
    define(&SIX_FIELDS, &mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llama-orch workflow",
        "anyOf": [reference(&SPEC), reference(&SIX_FIELDS)],
        "$defs": definitions,
    })
}

fn reference(section: &Section) -> Value {
    json!({ "$ref": format!("#/$defs/{}", section.title) })
}

/// Adds a section and all that it leads to.
fn define(section: &'static Section, definitions: &mut Map<String, Value>) {
    if definitions.contains_key(section.title) {
        return;
    }
    // A place is taken first: sections lead back to themselves.
    definitions.insert(section.title.to_owned(), Value::Null);
    let mut properties = Map::new();
    for key in section.keys {
        let mut schema = holds(&key.holds, definitions);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), described(key.about, key.default).into());
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<_> = section.keys.iter().filter(|key| key.is_required()).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !section.one_of.is_empty() {
        let alone = section.one_of.iter().map(|name| json!({ "required": [name] }));
        schema["oneOf"] = alone.collect();
    }
    if std::ptr::eq(section, &raw const SPEC) {
        schema["patternProperties"] = json!({ "^x-": true });
    }
    definitions.insert(section.title.to_owned(), schema);
}

fn described(about: &str, default: &str) -> String {
    match default {
        "" | "required" => about.to_owned(),
        default => format!("{about} Default: {default}."),
    }
}

fn holds(holding: &'static Holds, definitions: &mut Map<String, Value>) -> Value {
    match holding {
        Holds::Text | Holds::Template => json!({ "type": "string" }),
        Holds::Decision => json!({ "type": ["string", "boolean"] }),
        Holds::Flag => json!({ "type": "boolean" }),
        Holds::Count(from, u64::MAX) => json!({ "type": "integer", "minimum": from }),
        Holds::Count(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Holds::Span => {
            json!({ "type": "string", "pattern": r"^\s*([0-9]+(\.[0-9]*)?(ms|s|m|min|h|d))+\s*$" })
        }
        Holds::Word(words) => json!({ "enum": words }),
        Holds::List(of) => json!({ "type": "array", "items": holds(of, definitions) }),
        Holds::Named(of) => json!({ "type": "object", "additionalProperties": holds(of, definitions) }),
        Holds::In(section) => {
            define(section, definitions);
            reference(section)
        }
        Holds::Schema => json!({ "type": ["object", "boolean"] }),
        Holds::Any | Holds::Value => json!({}),
        Holds::Either(several) => {
            let several: Vec<_> = several.iter().map(|one| holds(one, definitions)).collect();
            json!({ "anyOf": several })
        }
        Holds::Nothing => json!({ "type": "null" }),
    }
}
