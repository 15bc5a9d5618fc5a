//! Whether OpenAI's strict mode takes a schema: it wants every object closed and every member required.

use serde_json::Value;

pub(super) fn can_be_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let is_object =
                map.get("type").is_some_and(|kind| kind == "object") || map.contains_key("properties");
            (!is_object || is_closed(schema)) && map.values().all(can_be_strict)
        }
        Value::Array(items) => items.iter().all(can_be_strict),
        _ => true,
    }
}

fn is_closed(object: &Value) -> bool {
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut names = object["properties"].as_object().into_iter().flatten().map(|(name, _)| name);
    object["additionalProperties"] == false && names.all(|name| required.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_closed_objects_with_required_members_are_strict() {
        let closed = json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "array", "items": {"type": "string"}}}});
        assert!(can_be_strict(&closed));
        let open = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}});
        assert!(!can_be_strict(&open));
        assert!(!can_be_strict(&json!({"type": "array", "items": open})));
        let optional = json!({"type": "object", "additionalProperties": false, "required": [],
            "properties": {"a": {"type": "string"}}});
        assert!(!can_be_strict(&optional));
        assert!(can_be_strict(&json!({"type": "string"})));
    }
}
