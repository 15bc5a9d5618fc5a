use std::path::Path;

use instance_config::{InstanceConfig, api_key, engine_command, log_path};
use orch_core::{EngineProfile, ExitCode, ReplicaId};
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, config_with, device, engine, home};

fn command(config: &InstanceConfig, profile: &EngineProfile) -> instance_config::EngineCommand {
    engine_command(config, &home(), profile, Path::new("/models/m.gguf"), 8001)
}

/// The arguments, one flag with its values a line, then the computed variables.
fn shown(extra: &Value) -> String {
    let command = command(&config_with(extra), &EngineProfile::default());
    let flag_begins_a_line = |argument: &String| {
        if argument.starts_with('-') { format!("\n{argument}") } else { format!(" {argument}") }
    };
    let args: String = command.args.iter().map(flag_begins_a_line).collect();
    let variables: Vec<String> =
        command.env_overrides.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}\n{}", args.trim(), variables.join("\n"))
}

#[test]
fn the_command_line_of_each_backend() {
    for backend in ["cpu", "vulkan", "cuda", "metal", "hip"] {
        let layers = if backend == "cpu" { 0 } else { 999 };
        let extra = json!({"gpu": {"backend": backend, "device_id": 1, "layers": layers}});
        insta::assert_snapshot!(backend, shown(&extra));
    }
}

#[test]
fn the_users_arguments_come_last_as_they_are() {
    let extra = json!({"args": ["-ot", r"blk\.\d+=CPU", "-ot", "b=c", "--ctx-size", "1", "--metrics", "--cors-origins", "*"]});
    insta::assert_snapshot!(shown(&extra));
}

#[test]
fn a_timeout_never_gets_shorter_by_rounding() {
    let text = shown(&json!({"server": {"timeout": 2.5}}));
    assert!(text.contains("--timeout 3"), "{text}");
}

#[test]
fn no_device_mask_where_the_user_chooses_devices_or_wants_all() {
    for args in [
        json!(["--device", "CUDA1"]),
        json!(["-ts", "3,1"]),
        json!(["--split_mode", "layer"]),
        json!(["-mg", "0"]),
        json!(["--rpc", "host:1"]),
    ] {
        let config = config_with(&json!({"gpu": {"backend": "cuda", "layers": 9}, "args": args}));
        assert_eq!(command(&config, &EngineProfile::default()).device_mask, None, "{args}");
    }
    let all = config_with(&json!({"gpu": {"backend": "cuda", "layers": 9, "device_id": null}}));
    assert_eq!(command(&all, &EngineProfile::default()).device_mask, None);
}

#[test]
fn each_replica_has_a_port_and_with_per_device_a_device_of_its_own() {
    let written =
        json!({"gpu": {"backend": "cuda", "layers": 9, "device_id": null}, "replicas": "per_device"});
    let config = config_with(&written);
    let mask = |number| {
        let own = config.of_replica(ReplicaId(number));
        (command(&own, &EngineProfile::default()).device_mask.unwrap(), own.server.port)
    };
    assert_eq!(mask(0), ("0".to_owned(), config.server.port));
    assert_eq!(mask(2), ("2".to_owned(), 0));

    let counted = config_with(&json!({"gpu": {"backend": "cuda", "device_id": 1}, "replicas": 3}));
    assert_eq!(counted.of_replica(ReplicaId(2)).gpu.device_id, Some(1));
    assert_eq!(counted.of_replica(ReplicaId::FIRST), counted);
}

#[test]
fn one_engine_for_each_device_is_counted_by_the_devices_of_its_backend() {
    let count = |config: Value, ids: &[&str]| {
        let mut profile = engine();
        profile.devices = ids.iter().map(|id| device(id)).collect();
        config_with(&config).replica_count(&profile)
    };
    let cuda = json!({"gpu": {"backend": "cuda", "layers": 9}, "replicas": "per_device"});
    assert_eq!(count(cuda.clone(), &["CUDA0", "Vulkan0", "CUDA1"]).unwrap(), 2);
    assert_eq!(count(json!({"replicas": 5}), &[]).unwrap(), 5);
    let refused = count(cuda, &["Vulkan0"]).unwrap_err();
    assert!(refused.exit == ExitCode::ConfigInvalid && refused.message.contains("no cuda device"));
    let refused = count(json!({"replicas": "per_device"}), &["CUDA0"]).unwrap_err();
    assert!(refused.message.contains("the cpu backend has no devices"), "{refused}");
}

#[test]
fn own_flags_that_an_engine_does_not_know_are_left_out_with_a_warning() {
    let mut profile = engine();
    profile.flags.remove("--cors-origins");
    profile.flags.remove("--timeout");
    let command = command(&config_with(&json!({})), &profile);
    assert!(!command.args.iter().any(|argument| argument == "--cors-origins" || argument == "600"));
    assert_eq!(command.warnings.len(), 2);
    assert!(command.rejected.is_empty());
}

/// The user's part of the command line, after translation.
fn translated(args: &[&str], profile: &EngineProfile) -> (Vec<String>, usize, Vec<String>) {
    let command = command(&config_with(&json!({"args": args})), profile);
    let own = command.args.iter().position(|argument| argument == "localhost").unwrap();
    let rejected =
        command.rejected.into_iter().map(|finding| finding.suggestion.unwrap_or_default()).collect();
    (command.args[own + 1..].to_vec(), command.warnings.len(), rejected)
}

#[test]
fn removed_flags_are_given_in_their_new_form() {
    let profile = engine();
    for (old, new) in [
        (&["--no-mmap"][..], &["--load-mode", "none"][..]),
        (&["--no_mmap"], &["--load-mode", "none"]),
        (&["--mlock"], &["--load-mode", "mlock"]),
        (&["-v", "--mlock", "--top-k", "1", "--mmap"], &["-v", "--load-mode", "mmap+mlock", "--top-k", "1"]),
        (&["-dio"], &["--load-mode", "dio"]),
        (&["--no-mmap", "-lm", "mlock"], &["-lm", "mlock"]),
        (&["--draft-max", "8", "--draft-min", "2"], &["--spec-draft-n-max", "8", "--spec-draft-n-min", "2"]),
        (&["-fa", "--top-k", "1"], &["-fa", "on", "--top-k", "1"]),
        (&["-fa"], &["-fa", "on"]),
        (&["--lora-scaled", "a.gguf", "0.5"], &["--lora-scaled", "a.gguf:0.5"]),
    ] {
        let (args, warnings, rejected) = translated(old, &profile);
        assert_eq!(args, new, "{old:?}");
        assert!(warnings > 0 && rejected.is_empty(), "{old:?}: {rejected:?}");
    }
}

#[test]
fn what_has_no_equivalent_is_rejected_with_advice() {
    let profile = engine();
    for (args, advice) in [
        (&["--no-mmap", "--mlock"][..], "--load-mode none"),
        (&["--spec-ngram-size-n", "3"], "--spec-ngram-simple-size-n"),
        (&["--ctx-sze", "1"], "did you mean --ctx-size?"),
        (&["--ctx-size=1"], "two arguments"),
    ] {
        let (_, _, rejected) = translated(args, &profile);
        assert_eq!(rejected.len(), 1, "{args:?}: {rejected:?}");
        assert!(rejected[0].contains(advice), "{rejected:?}");
    }
}

#[test]
fn an_older_engine_gets_what_the_user_wrote() {
    let mut older = engine();
    older.flags.retain(|flag| !flag.starts_with("--spec-") && flag != "--load-mode" && flag != "-lm");
    older.flags.extend(["--no-mmap", "--mlock"].map(str::to_owned));
    let written = ["--no-mmap", "--mlock", "--draft-max", "8", "-fa"];
    assert_eq!(translated(&written, &older), (written.map(str::to_owned).to_vec(), 0, vec![]));
}

#[test]
fn an_engine_that_was_not_probed_is_given_everything() {
    let written = ["--no-mmap", "--what-is-this"];
    assert_eq!(
        translated(&written, &EngineProfile::default()),
        (written.map(str::to_owned).to_vec(), 0, vec![])
    );
}

#[test]
fn a_command_does_not_show_its_key_when_debugged() {
    let config = config_with(&json!({"args": ["--api-key", "sesame"], "env": {"LLAMA_API_KEY": "sesame"}}));
    let text = format!("{:?}", command(&config, &engine()));
    assert!(!text.contains("sesame"), "{text}");
}

#[test]
fn the_key_is_found_wherever_an_engine_takes_one() {
    let sandbox = Sandbox::new();
    sandbox.write_file("keys.txt", "# ours\n\n  from-file \nsecond\n");
    for (extra, key) in [
        (json!({}), None),
        (json!({"args": ["--api-key", "first,second"]}), Some("first")),
        (json!({"args": ["--api-key", "a", "--api-key", "b"]}), Some("b")),
        (json!({"args": ["--api-key-file", "keys.txt"]}), Some("from-file")),
        (json!({"args": ["--api-key-file", "none.txt"]}), None),
        (json!({"env": {"LLAMA_API_KEY": "from-env"}}), Some("from-env")),
    ] {
        assert_eq!(api_key(&config_with(&extra), &sandbox.home).as_deref(), key, "{extra}");
    }
}

#[test]
fn log_templates_are_filled_in_below_the_home() {
    let config = config_with(&json!({"logs": {"stderr": r"C\{name}.err"}}));
    let path = |template: &str, replica| log_path(template, &config, &home(), ReplicaId(replica));
    assert_eq!(path(&config.logs.stdout, 0), Path::new("/home/user/llama/logs/chat/stdout.log"));
    assert_eq!(path(&config.logs.stdout, 2), Path::new("/home/user/llama/logs/chat/stdout.r2.log"));
    assert_eq!(path("/var/log/{name}", 1), Path::new("/var/log/chat.r1"));
    if cfg!(unix) {
        assert_eq!(path(&config.logs.stderr, 0), Path::new("/home/user/llama/C/chat.err"));
    }
}
