use instance_config::json_schema;
use serde_json::{Value, json};

use crate::sandbox::{config_with, minimal_with};

fn accepts(document: &Value) -> bool {
    jsonschema::is_valid(&json_schema(), document)
}

#[test]
fn the_schema_is_a_schema() {
    assert!(jsonschema::meta::is_valid(&json_schema()));
}

#[test]
fn minimal_and_complete_configs_obey_the_schema() {
    assert!(accepts(&minimal_with(&json!({}))));
    let complete = serde_json::to_value(config_with(&json!({"args": ["-v"], "env": {"A": "b"}}))).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&json_schema())
        .unwrap()
        .iter_errors(&complete)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn what_reading_refuses_the_schema_refuses_too() {
    for extra in [
        json!({"name": "Chat"}),
        json!({"name": "all"}),
        json!({"server": {"port": 80}}),
        json!({"model": {}}),
        json!({"model": {"path": "m.bin"}}),
        json!({"gpu": {"backend": "tpu"}}),
        json!({"replicas": "two"}),
        json!({"healthcheck": {"interval": 0}}),
        json!({"env": {"A": {}}}),
    ] {
        assert!(!accepts(&minimal_with(&extra)), "{extra}");
    }
}

#[test]
fn unknown_keys_are_allowed_because_they_are_kept() {
    assert!(accepts(&minimal_with(
        &json!({"colour": "red", "replicas": "per_device", "gpu": {"device_id": null}})
    )));
}
