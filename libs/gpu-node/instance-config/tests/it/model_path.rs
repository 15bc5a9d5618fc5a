use std::path::PathBuf;

use instance_config::{check_model, load_file, resolve_model_path};
use orch_core::ExitCode;
use serde_json::json;

use crate::sandbox::{Sandbox, minimal_with, tiny_gguf};

fn resolved(sandbox: &Sandbox, model: &str) -> PathBuf {
    let path = sandbox.write_json("chat", &minimal_with(&json!({"model": {"path": model}})));
    let loaded = load_file(&path).unwrap();
    resolve_model_path(&loaded.config, &loaded.path, &sandbox.home)
}

#[test]
fn a_relative_model_is_sought_beside_the_config_and_then_in_the_home() {
    let sandbox = Sandbox::new();
    let in_home = sandbox.write_file("models/m.gguf", "x");
    assert_eq!(resolved(&sandbox, "models/m.gguf"), in_home);
    let beside = sandbox.write_file("instances/chat/models/m.gguf", "x");
    assert_eq!(resolved(&sandbox, "models/m.gguf"), beside);
}

#[test]
fn a_model_that_is_nowhere_is_named_as_the_home_would_hold_it() {
    let sandbox = Sandbox::new();
    assert_eq!(resolved(&sandbox, "models/none.gguf"), sandbox.home.models().join("none.gguf"));
}

#[test]
fn an_absolute_model_is_taken_as_it_is() {
    let sandbox = Sandbox::new();
    let outside = sandbox.outside().join("none.gguf");
    assert_eq!(resolved(&sandbox, outside.to_str().unwrap()), outside);
}

#[test]
fn backslashes_are_understood_on_every_system() {
    let sandbox = Sandbox::new();
    let model = sandbox.write_file("models/owner__repo/m.GGUF", "x");
    assert_eq!(resolved(&sandbox, r"models\owner__repo\m.GGUF"), model);
}

#[test]
fn a_reference_names_a_file_of_the_homes_models() {
    let sandbox = Sandbox::new();
    let models = sandbox.home.models();
    assert_eq!(resolved(&sandbox, "hf:owner/repo:m.gguf"), models.join("owner__repo/m.gguf"));
    assert_eq!(resolved(&sandbox, "hf:owner/repo@main:m.gguf"), models.join("owner__repo/m.gguf"));
    assert!(
        resolved(&sandbox, "hf:../..:../../x").starts_with(&models),
        "a reference cannot leave the models"
    );
}

#[test]
fn a_missing_model_is_exit_54_and_an_unusable_one_55() {
    let sandbox = Sandbox::new();
    let exit = |path: &str| check_model(&sandbox.home.root().join(path)).map_err(|failure| failure.exit);
    sandbox.write_file("good.gguf", tiny_gguf(2048));
    sandbox.write_file("empty.gguf", "");
    sandbox.write_file("zip.gguf", "PK\x03\x04 and more");
    assert_eq!(exit("good.gguf"), Ok(()));
    assert_eq!(exit("none.gguf"), Err(ExitCode::ModelNotFound));
    assert_eq!(exit("good.gguf/below"), Err(ExitCode::ModelNotFound));
    assert_eq!(exit("empty.gguf"), Err(ExitCode::ModelInvalid));
    assert_eq!(exit("zip.gguf"), Err(ExitCode::ModelInvalid));
    assert_eq!(exit("."), Err(ExitCode::ModelInvalid));
}
