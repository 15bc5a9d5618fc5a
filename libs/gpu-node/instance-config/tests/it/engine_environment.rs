use std::path::Path;

use instance_config::{engine_command, engine_environment};
use orch_core::EngineProfile;
use serde_json::json;

use crate::sandbox::{config_with, home};

fn environment(parent: &[(&str, &str)], extra: &serde_json::Value) -> Vec<(String, String)> {
    let config = config_with(extra);
    let command = engine_command(&config, &home(), &EngineProfile::default(), Path::new("/m.gguf"), 8001);
    let parent = parent.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    engine_environment(parent, &config, &command.env_overrides)
}

fn value<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn what_is_not_the_engines_business_is_not_inherited() {
    let parent = [
        ("PATH", "/bin"),
        ("LLAMA_ARG_PORT", "1"),
        ("LLAMA_SERVER_ROUTER_PORT", "1"),
        ("llama_api_key", "x"),
        ("AIP_MODE", "PREDICTION"),
        ("LLORCH_API_TOKEN", "x"),
        ("ORCHESTRATORD_ADDR", "x"),
        ("POOL_MANAGERD_ADDR", "x"),
        ("OPENAI_API_KEY", "x"),
        ("HF_TOKEN", "x"),
        ("TOKENS", "kept"),
    ];
    let names: Vec<_> = environment(&parent, &json!({})).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["PATH", "TOKENS", "XDG_CONFIG_HOME"]);
}

#[test]
fn settings_of_the_users_own_engine_are_shut_out() {
    let environment = environment(&[("XDG_CONFIG_HOME", "/home/user/.config")], &json!({}));
    let private = home().engine_xdg();
    assert_eq!(value(&environment, "XDG_CONFIG_HOME"), private.to_str());
}

#[test]
fn the_configs_own_variables_win_over_computed_ones() {
    let gpu = json!({"gpu": {"backend": "cuda", "layers": 9, "device_id": 1}});
    assert_eq!(
        value(&environment(&[("CUDA_VISIBLE_DEVICES", "7")], &gpu), "CUDA_VISIBLE_DEVICES"),
        Some("1")
    );
    let own = json!({"gpu": gpu["gpu"], "env": {"CUDA_VISIBLE_DEVICES": "2", "LLAMA_API_KEY": "k"}});
    let environment = environment(&[], &own);
    assert_eq!(value(&environment, "CUDA_VISIBLE_DEVICES"), Some("2"));
    assert_eq!(
        value(&environment, "LLAMA_API_KEY"),
        Some("k"),
        "what the config itself sets is not scrubbed"
    );
}
