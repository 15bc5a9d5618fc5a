use std::time::Duration;

use instance_config::{
    FIELDS, HealthCheckType, LoadMode, Replicas, Severity, config_hash, load_file, restart_needed,
};
use orch_core::{DesiredState, ExitCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, config_with, minimal_with};

const OLDER_FOLDER: &str = "00000007_6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f";

#[test]
fn a_minimal_config_gets_every_default_of_the_format() {
    let sandbox = Sandbox::new();
    let loaded = sandbox.load(&minimal_with(&json!({}))).unwrap();
    assert_eq!(loaded.findings, []);
    let lines: Vec<String> = loaded
        .effective()
        .iter()
        .filter(|line| line.field != "instance_uid")
        .map(|line| {
            format!("{} = {} ({:?}, restart: {})", line.field, line.value, line.origin, line.needs_restart)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_missing_uid_gets_a_stand_in_that_is_the_same_at_every_reading() {
    let (one, again) = (config_with(&json!({})), config_with(&json!({})));
    assert_eq!(one.instance_uid, again.instance_uid);
    assert_ne!(one.instance_uid, config_with(&json!({"name": "other"})).instance_uid);
}

#[test]
fn every_uuid_is_read_whatever_its_version() {
    for uid in ["00000000-0000-0000-0000-000000000000", "6F1C2D3E-4A5B-1C6D-8E9F-0A1B2C3D4E5F"] {
        let config = config_with(&json!({"instance_uid": uid}));
        assert_eq!(config.instance_uid.to_string(), uid.to_lowercase());
    }
}

#[test]
fn ranges_are_kept_at_both_ends_of_every_number() {
    for field in FIELDS {
        use instance_config::Kind::{Integer, NullableInteger, Number, Seconds};
        let (inside, outside) = match field.kind {
            Integer { min, max } | NullableInteger { min, max } => {
                (vec![json!(min), json!(max)], vec![json!(min - 1), json!(max + 1)])
            }
            Number { min, max } | Seconds { min, max } => {
                (vec![json!(min), json!(max)], vec![json!(min - 0.05), json!(max * 1.01)])
            }
            _ => continue,
        };
        let reads = |value: &Value| Sandbox::new().load(&with_field(field.path, value)).is_ok();
        assert!(inside.iter().all(reads), "{}", field.path);
        assert!(!outside.iter().any(reads), "{}", field.path);
    }
}

fn with_field(path: &str, value: &Value) -> Value {
    let mut document = minimal_with(&json!({}));
    match path.split_once('.') {
        Some((section, key)) => {
            if document.get(section).is_none() {
                document[section] = json!({});
            }
            document[section][key] = value.clone();
        }
        None => document[path] = value.clone(),
    }
    document
}

#[test]
fn numbers_written_as_text_are_read_with_a_warning() {
    let sandbox = Sandbox::new();
    let written = json!({"server": {"port": "9001", "timeout": "2.5"}, "replicas": "2"});
    let loaded = sandbox.load(&minimal_with(&written)).unwrap();
    assert_eq!(loaded.config.server.port, 9001);
    assert_eq!(loaded.config.server.timeout, Duration::from_millis(2500));
    assert_eq!(loaded.config.replicas, Replicas::Count(2));
    let warned: Vec<_> = loaded.findings.iter().filter_map(|finding| finding.field.as_deref()).collect();
    assert_eq!(warned, ["server.port", "server.timeout", "replicas"]);
}

#[test]
fn null_is_absent_but_for_the_device_where_it_means_all() {
    let config = config_with(&json!({
        "server": null, "gpu": {"device_id": null, "layers": null}, "tags": null, "binary": {"version": null},
    }));
    assert_eq!((config.server.port, config.gpu.device_id, config.gpu.layers), (8001, None, 0));
    assert_eq!(config_with(&json!({})).gpu.device_id, Some(0));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_not_matter() {
    let sandbox = Sandbox::new();
    let text = "\u{feff}{\r\n\"name\": \"chat\",\r\n\"model\": {\"path\": \"m.gguf\"}\r\n}\r\n";
    assert!(load_file(&sandbox.write("chat", text)).is_ok());
}

#[test]
fn every_bad_field_is_told_with_its_dotted_path() {
    let sandbox = Sandbox::new();
    let broken = sandbox
        .load(&json!({
            "name": "Chat",
            "server": {"port": 80, "parallel": 0},
            "gpu": "cuda",
            "healthcheck": {"type": "custom"},
            "args": "--verbose",
        }))
        .unwrap_err();
    let fields: Vec<_> = broken.findings.iter().filter_map(|finding| finding.field.as_deref()).collect();
    let expected =
        ["gpu", "name", "model.path", "server.port", "server.parallel", "args", "healthcheck.custom_script"];
    assert_eq!(fields, expected);
    assert_eq!((broken.exit, broken.name.as_str()), (ExitCode::ConfigInvalid, "Chat"));
    assert!(broken.findings.iter().all(|finding| finding.severity == Severity::Error));
}

#[test]
fn the_failure_of_a_broken_config_names_file_field_and_reason() {
    let sandbox = Sandbox::new();
    let broken = sandbox.load(&minimal_with(&json!({"server": {"port": 80}}))).unwrap_err();
    let failure = broken.failure();
    assert_eq!(failure.exit, ExitCode::ConfigInvalid);
    assert!(failure.message.contains("chat/config.json: server.port: must be between 1024 and"), "{failure}");
}

#[test]
fn an_unknown_key_is_kept_and_its_neighbour_suggested() {
    let sandbox = Sandbox::new();
    let written = json!({
        "model": {"path": "m.gguf", "contextsize": 1024, "parallel": 2},
        "heathcheck": {}, "context_size": 1, "colour": "red",
        "model_metadata": {"a": 1}, "parameter_mutability": null, "sort_order": 3, "$schema": "x",
    });
    let loaded = sandbox.load(&minimal_with(&written)).unwrap();
    let told: Vec<_> = loaded
        .findings
        .iter()
        .map(|finding| (finding.field.as_deref().unwrap(), finding.suggestion.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("model.contextsize", Some("did you mean model.context_size?")),
            ("model.parallel", Some("did you mean server.parallel?")),
            ("heathcheck", Some("did you mean healthcheck?")),
            ("context_size", Some("did you mean model.context_size?")),
            ("colour", None),
        ]
    );
}

#[test]
fn a_newer_format_is_read_with_a_warning() {
    let sandbox = Sandbox::new();
    let loaded = sandbox.load(&minimal_with(&json!({"schema_version": "3"}))).unwrap();
    assert_eq!(loaded.findings[0].field.as_deref(), Some("schema_version"));
}

#[test]
fn an_address_in_args_is_refused_in_a_config_of_ours() {
    let sandbox = Sandbox::new();
    for args in [json!(["--port", "9000"]), json!(["-v", "--host=0.0.0.0"])] {
        let broken = sandbox.load(&minimal_with(&json!({"args": args}))).unwrap_err();
        assert_eq!(broken.findings[0].field.as_deref(), Some("args"));
        assert!(broken.findings[0].suggestion.as_deref().unwrap().contains("set server."));
    }
}

#[test]
fn an_address_in_args_of_the_older_tool_becomes_the_server_s() {
    let sandbox = Sandbox::new();
    let written = json!({"args": ["--port", "9000", "-v"], "server": {"port": 8005}});
    let loaded = load_file(&sandbox.write_json(OLDER_FOLDER, &minimal_with(&written))).unwrap();
    assert_eq!((loaded.config.server.port, loaded.config.args), (9000, vec!["-v".to_owned()]));
    assert_eq!(loaded.findings[0].severity, Severity::Warning);
    let marked = json!({"args": ["--port", "9000"], "parameter_mutability": {"static": []}});
    assert_eq!(config_with(&marked).server.port, 9000);
}

#[test]
fn fields_of_later_milestones_are_understood() {
    let config = config_with(&json!({
        "replicas": "per_device",
        "lifecycle": {"load": "on_demand", "idle_ttl": 90, "group": "big", "pin": true},
        "healthcheck": {"type": "tcp", "warmup_enabled": true, "warmup_prompt": "Hi", "expected_status": 204},
    }));
    assert_eq!(config.replicas, Replicas::PerDevice);
    assert_eq!(config.lifecycle.load, LoadMode::OnDemand);
    assert_eq!(config.lifecycle.load.desired_default(), DesiredState::OnDemand);
    assert_eq!(config.lifecycle.idle_ttl, Duration::from_secs(90));
    assert_eq!(config.healthcheck.kind, HealthCheckType::Tcp);
    assert_eq!(config.healthcheck.expected_status, [204]);
}

#[test]
fn secrets_are_masked_in_everything_that_is_shown() {
    let sandbox = Sandbox::new();
    let written = json!({"args": ["--api-key", "sesame1"], "env": {"HF_TOKEN": "sesame2", "A": "plain"}});
    let loaded = sandbox.load(&minimal_with(&written)).unwrap();
    let shown = format!("{loaded:?} {} {:?}", loaded.config.shown(), loaded.effective());
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(shown.contains("plain"));
}

#[test]
fn only_what_reaches_the_engine_asks_for_a_restart() {
    let base = config_with(&json!({}));
    for dynamic in [
        json!({"tags": ["a"]}),
        json!({"aliases": ["gpt-4o"]}),
        json!({"healthcheck": {"interval": 2}}),
        json!({"restart_policy": {"max_retries": 1}}),
        json!({"lifecycle": {"pin": true}}),
        json!({"model_metadata": {"a": 1}}),
    ] {
        assert!(!restart_needed(&base, &config_with(&dynamic)), "{dynamic}");
    }
    for engine in [
        json!({"server": {"port": 8002}}),
        json!({"model": {"path": "other.gguf"}}),
        json!({"gpu": {"device_id": null}}),
        json!({"args": ["-v"]}),
        json!({"env": {"A": "1"}}),
        json!({"binary": {"version": "b1"}}),
        json!({"logs": {"max_size_mb": 1}}),
    ] {
        assert!(restart_needed(&base, &config_with(&engine)), "{engine}");
    }
}

#[test]
fn the_hash_does_not_depend_on_how_a_config_is_written() {
    let written_out =
        json!({"server": {"port": "8001"}, "gpu": {"device_id": 0}, "env": {"B": "2", "A": "1"}});
    let short = json!({"env": {"A": "1", "B": "2"}});
    assert_eq!(config_hash(&config_with(&written_out)), config_hash(&config_with(&short)));
}

#[test]
fn a_config_that_is_cut_anywhere_is_a_parse_error_and_too_large_a_one_too() {
    let sandbox = Sandbox::new();
    let whole = minimal_with(&json!({"args": ["-ot", r"blk\.(1|2)=CPU"], "tags": ["é"]})).to_string();
    for length in 0..whole.len() {
        let broken = load_file(&sandbox.write("chat", &whole.as_bytes()[..length])).unwrap_err();
        assert_eq!(broken.exit, ExitCode::ConfigParse, "cut at {length}");
    }
    let large = minimal_with(&json!({"model_metadata": "x".repeat(5 * 1024 * 1024)}));
    assert_eq!(sandbox.load(&large).unwrap_err().exit, ExitCode::ConfigParse);
}

#[test]
fn of_a_key_that_is_written_twice_the_last_counts() {
    let sandbox = Sandbox::new();
    let text = r#"{"name": "chat", "model": {"path": "a.gguf"}, "model": {"path": "b.gguf"}}"#;
    assert_eq!(load_file(&sandbox.write("chat", text)).unwrap().config.model.path, "b.gguf");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[a-z_]{1,10}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_as_a_config_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let sandbox = Sandbox::new();
        let _ = load_file(&sandbox.write("chat", bytes));
    }

    #[test]
    fn any_value_in_any_field_is_read_or_refused_under_that_fields_path(
        index in 0..FIELDS.len(),
        value in any_json(),
    ) {
        let field = &FIELDS[index];
        match Sandbox::new().load(&with_field(field.path, &value)) {
            Ok(loaded) => {
                // What was accepted survives being written and read again.
                let effective = serde_json::to_value(&loaded.config).unwrap();
                let again = Sandbox::new().load(&effective).unwrap();
                prop_assert_eq!(again.config, loaded.config);
            }
            Err(broken) => {
                let section = field.path.split('.').next().unwrap();
                let named = |path: &Option<String>| path.as_deref().is_some_and(|path| path.starts_with(section));
                prop_assert!(broken.findings.iter().any(|finding| named(&finding.field)), "{:?}", broken.findings);
            }
        }
    }
}
