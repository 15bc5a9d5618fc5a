use std::collections::BTreeMap;

use instance_config::{EngineFact, LintFacts, Report, Severity, lint};
use orch_core::{EngineProfile, ExitCode, Failure};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, device, engine, minimal_with, tiny_gguf};

struct Facts {
    engine: Option<EngineFact>,
    busy_port: u16,
}

impl Facts {
    fn none() -> Self {
        Self { engine: None, busy_port: 1 }
    }

    fn engine(profile: EngineProfile) -> Self {
        Self { engine: Some(EngineFact::Known(profile)), ..Self::none() }
    }
}

fn report(sandbox: &Sandbox, facts: &Facts) -> Report {
    let engines: BTreeMap<String, EngineFact> =
        facts.engine.clone().into_iter().map(|fact| ("chat".to_owned(), fact)).collect();
    let facts = LintFacts {
        home: &sandbox.home,
        engines: &engines,
        cpu_count: 8,
        host_memory: None,
        port_in_use: &|port| port == facts.busy_port,
    };
    lint(&sandbox.catalog(), &facts)
}

/// A home with a usable model and one config.
fn sandbox_with(extra: &Value) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_file("m.gguf", tiny_gguf(131_072));
    sandbox.write_json("chat", &minimal_with(extra));
    sandbox
}

/// What is found about one config, as `severity field: message`.
fn found(extra: &Value, facts: &Facts) -> Vec<String> {
    lines(&report(&sandbox_with(extra), facts))
}

fn lines(report: &Report) -> Vec<String> {
    let line = |finding: &instance_config::Finding| {
        let severity = format!("{:?}", finding.severity).to_lowercase();
        format!("{severity} {}: {}", finding.field.as_deref().unwrap_or("-"), finding.message)
    };
    report.findings.iter().map(line).collect()
}

#[track_caller]
fn finds(extra: &Value, facts: &Facts, expected: &str) {
    let found = found(extra, facts);
    assert!(found.len() == 1 && found[0].contains(expected), "{found:?} must be {expected:?}");
}

#[test]
fn a_sound_config_gives_no_finding() {
    assert_eq!(found(&json!({}), &Facts::engine(engine())), Vec::<String>::new());
}

#[test]
fn a_time_to_live_of_what_only_its_user_unloads_has_no_effect_and_that_is_told() {
    let manual = json!({"lifecycle": {"idle_ttl": 90}});
    finds(&manual, &Facts::none(), "warning lifecycle.idle_ttl: has no effect");
    let on_demand = json!({"lifecycle": {"load": "on_demand", "idle_ttl": 90, "group": "big"}});
    assert_eq!(found(&on_demand, &Facts::none()), [] as [&str; 0]);
}

#[test]
fn a_model_that_cannot_be_loaded_is_an_error() {
    for (content, expected) in
        [(&b""[..], "is empty"), (b"GG", "not a GGUF"), (b"PK\x03\x04....", "not a GGUF")]
    {
        let sandbox = sandbox_with(&json!({}));
        sandbox.write_file("m.gguf", content);
        let report = report(&sandbox, &Facts::none());
        assert!(!report.valid);
        assert!(lines(&report)[0].contains(expected), "{:?}", lines(&report));
    }
    finds(&json!({"model": {"path": "none.gguf"}}), &Facts::none(), "error model.path: there is no model");
    let sandbox = sandbox_with(&json!({"model": {"path": "folder.gguf"}}));
    sandbox.write_file("folder.gguf/x", "");
    assert!(lines(&report(&sandbox, &Facts::none()))[0].contains("is not a file"));
}

#[cfg(unix)]
#[test]
fn a_log_folder_that_cannot_be_written_is_an_error() {
    let sandbox = sandbox_with(&json!({"logs": {"stdout": "file/{name}.log"}}));
    sandbox.write_file("file", "not a folder");
    assert!(lines(&report(&sandbox, &Facts::none()))[0].starts_with("error logs.stdout:"));
}

#[test]
fn a_port_of_two_configs_is_an_error_that_names_both() {
    let sandbox = sandbox_with(&json!({}));
    sandbox.write_json("embed", &minimal_with(&json!({"name": "embed"})));
    let report = report(&sandbox, &Facts::none());
    assert!(!report.valid);
    let told = lines(&report);
    assert_eq!(
        told,
        [
            "error server.port: port 8001 is also claimed by embed",
            "error server.port: port 8001 is also claimed by chat"
        ]
    );
}

#[test]
fn configs_that_let_the_port_be_chosen_do_not_collide() {
    let sandbox = sandbox_with(&json!({"server": {"port": 0}}));
    sandbox.write_json("embed", &minimal_with(&json!({"name": "embed", "server": {"port": 0}})));
    assert!(report(&sandbox, &Facts::none()).valid);
}

#[test]
fn a_broken_config_is_reported_and_still_claims_its_port() {
    let sandbox = sandbox_with(&json!({}));
    sandbox.write_json("bad", &json!({"name": "bad", "server": {"port": 8001}}));
    let report = report(&sandbox, &Facts::none());
    let told: Vec<_> =
        report.findings.iter().map(|it| (it.instance.as_deref(), it.field.as_deref())).collect();
    assert_eq!(told, [(Some("bad"), Some("model.path")), (Some("chat"), Some("server.port"))]);
}

#[test]
fn a_pinned_engine_that_is_not_installed_is_an_error() {
    let failure = Failure::new(ExitCode::EngineNotFound, "engine b1 is not installed");
    let facts = Facts { engine: Some(EngineFact::Missing(failure)), ..Facts::none() };
    finds(&json!({"binary": {"version": "b1"}}), &facts, "error binary.version: engine b1");
    let id = json!({"binary": {"binary_id": "6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f"}});
    finds(&id, &facts, "error binary.binary_id: engine b1");
    finds(&json!({"binary": {"version": "latest"}}), &facts, "warning -: engine b1");
}

#[test]
fn a_flag_the_engine_does_not_know_is_an_error() {
    finds(
        &json!({"args": ["--ctx-sze", "1"]}),
        &Facts::engine(engine()),
        "error args: the engine does not know",
    );
}

#[test]
fn a_removed_flag_that_has_an_heir_is_a_warning() {
    finds(
        &json!({"args": ["--no-mmap"]}),
        &Facts::engine(engine()),
        "warning args: --no-mmap is given as --load-mode",
    );
}

#[test]
fn a_port_in_use_is_a_warning() {
    finds(
        &json!({}),
        &Facts { busy_port: 8001, ..Facts::none() },
        "warning server.port: port 8001 is in use",
    );
}

#[test]
fn a_host_that_others_can_reach_is_a_warning() {
    finds(
        &json!({"server": {"host": "0.0.0.0"}}),
        &Facts::none(),
        "warning server.host: 0.0.0.0 is not a loopback",
    );
    for loopback in ["localhost", "::1", "127.0.0.2"] {
        assert!(found(&json!({"server": {"host": loopback}}), &Facts::none()).is_empty());
    }
}

#[test]
fn layers_without_a_gpu_and_a_gpu_without_layers_are_warnings() {
    finds(&json!({"gpu": {"layers": 9}}), &Facts::none(), "warning gpu.layers: 9 layers are ignored");
    finds(
        &json!({"gpu": {"backend": "cuda"}}),
        &Facts::none(),
        "warning gpu.layers: no layer is computed on cuda",
    );
    assert!(found(&json!({"gpu": {"backend": "cuda"}, "args": ["-ngl", "all"]}), &Facts::none()).is_empty());
}

#[test]
fn a_device_that_the_engine_does_not_list_is_a_warning() {
    let cuda = |id: Value| json!({"gpu": {"backend": "cuda", "layers": 9, "device_id": id}});
    let mut profile = engine();
    finds(
        &cuda(json!(0)),
        &Facts::engine(profile.clone()),
        "warning gpu.device_id: the engine lists no cuda device",
    );
    profile.devices = vec![device("CUDA0"), device("Vulkan0")];
    finds(&cuda(json!(1)), &Facts::engine(profile.clone()), "warning gpu.device_id: the engine lists 1 cuda");
    for good in [json!(0), Value::Null] {
        assert!(found(&cuda(good), &Facts::engine(profile.clone())).is_empty());
    }
}

#[test]
fn one_engine_for_each_device_needs_devices_and_a_free_choice_of_them() {
    let per_device = |mut config: Value| {
        config["replicas"] = json!("per_device");
        config
    };
    finds(&per_device(json!({})), &Facts::none(), "error replicas: per_device needs a GPU backend");
    let cuda = |extra: Value| {
        let mut config = per_device(json!({"gpu": {"backend": "cuda", "layers": 9, "device_id": 7}}));
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    let mut profile = engine();
    let none = "warning replicas: the engine lists no cuda device";
    finds(&cuda(json!({})), &Facts::engine(profile.clone()), none);
    profile.devices = vec![device("CUDA0"), device("CUDA1")];
    assert!(found(&cuda(json!({})), &Facts::engine(profile)).is_empty(), "device_id is not asked for");
    for choice in [json!({"env": {"CUDA_VISIBLE_DEVICES": "1"}}), json!({"args": ["--main-gpu", "1"]})] {
        let told = found(&cuda(choice), &Facts::none());
        assert!(told.iter().any(|line| line.starts_with("warning replicas: ")), "{told:?}");
    }
}

#[test]
fn further_replicas_claim_no_port() {
    let sandbox = sandbox_with(&json!({"replicas": 3}));
    sandbox.write_json("embed", &minimal_with(&json!({"name": "embed", "server": {"port": 8002}})));
    assert!(report(&sandbox, &Facts::none()).valid);
}

#[test]
fn an_unknown_key_is_a_warning() {
    finds(&json!({"colour": 1}), &Facts::none(), "warning colour: is not a known field");
}

#[test]
fn more_threads_than_cpus_is_a_warning() {
    let config = json!({"model": {"path": "m.gguf", "threads": 9}});
    finds(&config, &Facts::none(), "warning model.threads: 9 threads");
}

#[test]
fn more_context_than_the_model_was_trained_for_is_a_warning() {
    let sandbox = sandbox_with(&json!({}));
    sandbox.write_file("m.gguf", tiny_gguf(2048));
    let told = lines(&report(&sandbox, &Facts::none()));
    assert!(told[0].contains("4096 tokens are more than the model was trained for (2048)"), "{told:?}");
}

#[test]
fn slots_with_little_context_are_a_warning_and_arguments_count() {
    let expected = "warning model.context_size: 8 slots share 4096 tokens: 512 for each";
    finds(&json!({"server": {"parallel": 8}}), &Facts::none(), expected);
    finds(&json!({"args": ["-np", "8"]}), &Facts::none(), expected);
    assert!(found(&json!({"server": {"parallel": 8}, "args": ["-c", "16384"]}), &Facts::none()).is_empty());
}

#[test]
fn cutting_long_conversations_silently_is_a_warning() {
    let expected = "warning args: --context-shift cuts long conversations silently";
    finds(&json!({"args": ["--context-shift"]}), &Facts::none(), expected);
    assert!(found(&json!({"args": ["--context-shift", "--no-context-shift"]}), &Facts::none()).is_empty());
}

#[test]
fn probing_more_than_once_a_second_is_a_warning() {
    finds(&json!({"healthcheck": {"interval": 0.5}}), &Facts::none(), "warning healthcheck.interval:");
}

#[test]
fn flags_that_give_away_the_machine_are_warnings() {
    for flag in ["--tools", "--mcp-servers-config", "--mcp-servers-json", "--ui-mcp-proxy", "--agent", "-ag"]
    {
        finds(&json!({"args": [flag, "x"]}), &Facts::none(), &format!("warning args: {flag} lets"));
    }
}

#[test]
fn a_device_variable_that_contradicts_the_field_is_an_info() {
    let config = json!({
        "gpu": {"backend": "cuda", "layers": 9, "device_id": 0}, "env": {"CUDA_VISIBLE_DEVICES": "1"},
    });
    finds(&config, &Facts::none(), "info env: CUDA_VISIBLE_DEVICES is 1");
}

#[test]
fn a_copied_config_shares_its_identity_with_the_original() {
    let identity = json!({"instance_uid": "6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f", "instance_no": "00000001"});
    let sandbox = sandbox_with(&identity);
    let mut copy = minimal_with(&identity);
    copy["name"] = json!("copy");
    copy["server"] = json!({"port": 8002});
    sandbox.write_json("copy", &copy);
    let report = report(&sandbox, &Facts::none());
    assert!(report.valid);
    assert_eq!(report.findings.len(), 4);
}

#[test]
fn a_home_without_instances_is_an_info_and_valid() {
    let report = report(&Sandbox::new(), &Facts::none());
    assert!(report.valid);
    assert_eq!(report.findings[0].severity, Severity::Info);
}

#[test]
fn the_json_shape_is_the_one_scripts_rely_on() {
    let sandbox = sandbox_with(&json!({"server": {"host": "0.0.0.0"}}));
    let json = serde_json::to_value(report(&sandbox, &Facts::none())).unwrap();
    assert_eq!(json["valid"], true);
    let finding = &json["findings"][0];
    assert_eq!(finding["severity"], "warning");
    assert_eq!(finding["instance"], "chat");
    assert_eq!(finding["field"], "server.host");
    assert!(finding["message"].is_string() && finding["suggestion"].is_string());
}

#[test]
fn a_model_that_is_larger_than_its_device_is_told_with_both_figures() {
    let facts = Facts::engine(EngineProfile { devices: vec![device("CUDA0")], ..engine() });
    let gpu = json!({"gpu": {"backend": "cuda", "device_id": 0, "layers": 999}});
    let sandbox = sandbox_with(&gpu);
    let model = std::fs::File::options().write(true).open(sandbox.home.root().join("m.gguf")).unwrap();
    model.set_len(1 << 40).unwrap();
    let lines = lines(&report(&sandbox, &facts));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("warning gpu.layers: takes about 1.3 TiB of the memory of CUDA0")),
        "{lines:?}"
    );
}
