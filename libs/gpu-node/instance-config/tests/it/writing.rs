use instance_config::{load_file, save};
use orch_core::{ExitCode, UnixMillis};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, minimal_with};

const NOW: UnixMillis = UnixMillis(1_700_000_000_123);

fn on_disk(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn unknown_keys_nulls_and_order_survive_a_change() {
    let sandbox = Sandbox::new();
    let text = r#"{"zebra": {"b": 1, "a": [null, 1.5]}, "name": "chat", "tags": null,
        "model": {"extra": true, "path": "models\\m.gguf"}, "args": ["-ot", "blk\\.\\d+=CPU", "-ot", "x=y"]}"#;
    let path = sandbox.write("chat", text);
    let mut loaded = load_file(&path).unwrap();
    loaded.set("server.port", "9001").unwrap();
    save(&mut loaded, NOW).unwrap();
    let mut written = on_disk(&path);
    assert_eq!(written["server"], json!({"port": 9001}));
    assert_eq!(written["updated_at"], "2023-11-14T22:13:20.123Z");
    assert_eq!(written["instance_uid"], json!(loaded.config.instance_uid));
    let map = written.as_object_mut().unwrap();
    for added in ["server", "updated_at", "instance_uid"] {
        map.shift_remove(added);
    }
    assert_eq!(written.to_string(), serde_json::from_str::<Value>(text).unwrap().to_string());
}

#[cfg(unix)]
#[test]
fn what_is_written_only_its_owner_may_read_and_nothing_else_is_left() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let path = sandbox.write_json("chat", &minimal_with(&json!({})));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut loaded = load_file(&path).unwrap();
    save(&mut loaded, NOW).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_config_elsewhere_stays_a_link() {
    let sandbox = Sandbox::new();
    let real = sandbox.write_file("elsewhere.json", minimal_with(&json!({})).to_string());
    let keep = sandbox.write_file("instances/chat/keep", "");
    let link = keep.with_file_name("config.json");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut loaded = load_file(&link).unwrap();
    loaded.set("server.port", "9001").unwrap();
    save(&mut loaded, NOW).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(on_disk(&real)["server"]["port"], 9001);
}

#[test]
fn values_are_typed_as_people_type_them_and_written_strictly() {
    let sandbox = Sandbox::new();
    let path = sandbox.write_json("chat", &minimal_with(&json!({})));
    let mut loaded = load_file(&path).unwrap();
    for (field, value) in [
        ("server.port", "9001"),
        ("gpu.device_id", "null"),
        ("binary.version", "11434"),
        ("tags", "Chat, gpu"),
        ("aliases", "gpt-4o"),
        ("args", r#"["--top-k", "40"]"#),
        ("healthcheck.expected_status", "200,204"),
        ("restart_policy.enabled", "false"),
        ("replicas", "per_device"),
        ("env.CUDA_VISIBLE_DEVICES", "1"),
        ("env.A", "b"),
        ("env.A", ""),
    ] {
        loaded.set(field, value).unwrap_or_else(|failure| panic!("{field}: {failure}"));
    }
    save(&mut loaded, NOW).unwrap();
    let written = on_disk(&path);
    assert_eq!(written["server"]["port"], json!(9001));
    assert_eq!(written["gpu"], json!({"device_id": null}));
    assert_eq!(written["binary"]["version"], json!("11434"));
    assert_eq!(written["tags"], json!(["chat", "gpu"]));
    assert_eq!(written["aliases"], json!(["gpt-4o"]));
    assert_eq!(written["args"], json!(["--top-k", "40"]));
    assert_eq!(written["healthcheck"]["expected_status"], json!([200, 204]));
    assert_eq!(written["restart_policy"]["enabled"], json!(false));
    assert_eq!(written["replicas"], json!("per_device"));
    assert_eq!(written["env"], json!({"CUDA_VISIBLE_DEVICES": "1"}));
    assert_eq!(load_file(&path).unwrap().findings, []);
}

#[test]
fn a_change_that_would_not_be_valid_changes_nothing() {
    let sandbox = Sandbox::new();
    let mut loaded = sandbox.load(&minimal_with(&json!({}))).unwrap();
    let before = loaded.config.clone();
    for (field, value, exit) in [
        ("server.port", "80", ExitCode::ConfigInvalid),
        ("args", "--port 9000", ExitCode::ConfigInvalid),
        ("args", r#"["--port", "9000"]"#, ExitCode::ConfigInvalid),
        ("healthcheck.type", "custom", ExitCode::ConfigInvalid),
        ("model.path", "null", ExitCode::ConfigInvalid),
        ("serverport", "1", ExitCode::Usage),
    ] {
        assert_eq!(loaded.set(field, value).unwrap_err().exit, exit, "{field}");
    }
    assert_eq!(loaded.config, before);
}

#[test]
fn only_the_result_of_several_changes_is_judged_and_their_order_does_not_matter() {
    let sandbox = Sandbox::new();
    let custom = [
        ("healthcheck.type", "custom"),
        ("healthcheck.custom_script", "true"),
        ("env.A", "b"),
        ("env", r#"{"C": "d"}"#),
    ];
    let changed = |assignments: &[(&str, &str)]| {
        let mut loaded = sandbox.load(&minimal_with(&json!({}))).unwrap();
        loaded.set_all(assignments).map(|()| loaded.config)
    };
    let forwards = changed(&custom).unwrap();
    let backwards = changed(&custom.iter().rev().copied().collect::<Vec<_>>()).unwrap();
    assert_eq!(forwards, backwards);
    assert_eq!((forwards.env["A"].as_str(), forwards.env["C"].as_str()), ("b", "d"));
    assert_eq!(changed(&custom[..1]).unwrap_err().exit, ExitCode::ConfigInvalid);
    let twice = [("server.port", "9001"), ("server.port", "9002")];
    assert_eq!(changed(&twice).unwrap_err().exit, ExitCode::Usage);
}

#[test]
fn what_an_instance_is_known_by_is_not_changed() {
    let sandbox = Sandbox::new();
    let mut loaded = sandbox.load(&minimal_with(&json!({}))).unwrap();
    let before = loaded.config.clone();
    for (field, value) in
        [("name", "other"), ("instance_uid", "6e1c8b1e-0000-4000-8000-000000000000"), ("schema_version", "1")]
    {
        let failure = loaded.set(field, value).unwrap_err();
        assert_eq!(failure.exit, ExitCode::ConfigInvalid, "{field}");
        assert!(failure.hint.unwrap().contains("llama-orch init"));
    }
    assert_eq!(loaded.config, before);
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_one() {
    let sandbox = Sandbox::new();
    let mut loaded = sandbox.load(&minimal_with(&json!({}))).unwrap();
    let hint = |failure: orch_core::Failure| failure.hint.unwrap();
    assert_eq!(hint(loaded.set("server.prot", "1").unwrap_err()), "did you mean server.port?");
    assert_eq!(hint(loaded.set("port", "1").unwrap_err()), "did you mean server.port?");
}

#[test]
fn setting_the_port_of_an_older_config_is_not_overruled_by_its_args() {
    let sandbox = Sandbox::new();
    let older = minimal_with(&json!({"args": ["--port", "9000"], "parameter_mutability": {"static": []}}));
    let path = sandbox.write_json("chat", &older);
    let mut loaded = load_file(&path).unwrap();
    loaded.set("server.port", "9001").unwrap();
    save(&mut loaded, NOW).unwrap();
    assert_eq!(load_file(&path).unwrap().config.server.port, 9001);
    assert_eq!(on_disk(&path)["args"], json!([]));
}

#[test]
fn a_refusal_speaks_of_what_was_meant_and_names_the_field() {
    let sandbox = Sandbox::new();
    let mut instance = sandbox.load(&minimal_with(&json!({}))).unwrap();
    for (field, value, message) in [
        ("server.port", "8001.5", "server.port: must be a port number, is a number"),
        ("args", "-v", "args: must be a list of texts, is text"),
        ("env", "{\"A\": [1]}", "env: A: must be text, is a list"),
        (
            "healthcheck.expected_status",
            "[]",
            "healthcheck.expected_status: must name at least one HTTP status",
        ),
    ] {
        let failure = instance.set(field, value).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (ExitCode::ConfigInvalid, message));
    }
    let section = instance.set("server", "{}").unwrap_err();
    assert_eq!(section.exit, ExitCode::Usage);
    assert_eq!(section.hint.as_deref(), Some("set what is in it, such as server.host"));
}

#[test]
fn maps_and_lists_are_set_as_json() {
    let sandbox = Sandbox::new();
    let mut instance = sandbox.load(&minimal_with(&json!({}))).unwrap();
    let assignments = [
        ("env", r#"{"THREADS": 4, "NAME": "x", "GONE": null}"#),
        ("args", r#"["-ot", "blk\\.(1|2)=CPU", "--seed", 7]"#),
        ("healthcheck.expected_status", "200,204"),
        ("model_metadata", r#"{"a": [1, null]}"#),
        ("gpu.device_id", "null"),
    ];
    instance.set_all(&assignments).unwrap();
    let config = &instance.config;
    let env: Vec<(&str, &str)> =
        config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("NAME", "x"), ("THREADS", "4")]);
    assert_eq!(config.args, ["-ot", r"blk\.(1|2)=CPU", "--seed", "7"]);
    assert_eq!(
        (config.healthcheck.expected_status.as_slice(), config.gpu.device_id),
        (&[200, 204][..], None)
    );
}
