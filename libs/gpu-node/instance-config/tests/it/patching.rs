//! Changes as merge patches, new instances as documents.

use instance_config::{Catalog, LoadedInstance, create_from, discover, load_file, save};
use orch_core::{ExitCode, HomeLayout, UnixMillis};
use serde_json::{Map, Value, json};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Scene {
    _folder: tempfile::TempDir,
    home: HomeLayout,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeLayout::new(folder.path().to_owned());
        Self { _folder: folder, home }
    }

    fn create(&self, document: &Value) -> Result<LoadedInstance, orch_core::Failure> {
        let catalog: Catalog = discover(&self.home).unwrap();
        create_from(&self.home, &catalog, &object(document), &|_| true, NOW)
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn chat() -> Value {
    json!({"name": "chat", "model": {"path": "m.gguf", "context_size": 2048}, "tags": ["x"],
           "env": {"A": "1", "B": "2"}})
}

#[test]
fn a_new_instance_is_what_its_document_says_with_an_identity_and_a_port_of_its_own() {
    let scene = Scene::new();
    let first = scene.create(&chat()).unwrap();
    let second = scene.create(&json!({"name": "other", "model": {"path": "m.gguf"}})).unwrap();
    assert_eq!(
        (first.config.model.context_size, first.config.tags.as_slice()),
        (2048, &["x".to_owned()][..])
    );
    assert_eq!((first.config.server.port, second.config.server.port), (8001, 8002));
    let read = load_file(&first.path).unwrap();
    assert_eq!(read.config, first.config);
}

#[test]
fn what_cannot_be_a_new_instance_leaves_no_file() {
    let scene = Scene::new();
    for (document, exit) in [
        (json!({"model": {"path": "m.gguf"}}), ExitCode::ConfigInvalid),
        (json!({"name": "a b", "model": {"path": "m.gguf"}}), ExitCode::ConfigInvalid),
        (json!({"name": "a"}), ExitCode::ConfigInvalid),
        (json!({"name": "a", "model": {"path": 7}}), ExitCode::ConfigInvalid),
        (json!({"name": "a", "model": {"path": "m"}, "server": {"port": "8001"}}), ExitCode::ConfigInvalid),
        (json!({"name": "a", "model": {"path": "m"}, "colour": "red"}), ExitCode::ConfigInvalid),
        (json!({"name": "a", "model": {"path": "m"}, "instance_uid": "x"}), ExitCode::ConfigInvalid),
    ] {
        assert_eq!(scene.create(&document).unwrap_err().exit, exit, "{document}");
    }
    assert!(!scene.home.instances().join("a").exists());
    scene.create(&chat()).unwrap();
    assert_eq!(scene.create(&chat()).unwrap_err().exit, ExitCode::AlreadyExists);
}

#[test]
fn a_patch_changes_what_it_names_and_null_takes_out() {
    let scene = Scene::new();
    let mut instance = scene.create(&chat()).unwrap();
    let patch =
        json!({"model": {"context_size": null, "threads": 3}, "env": {"A": null, "C": "3"}, "tags": ["y"]});
    let named = instance.merge(&object(&patch)).unwrap();
    assert_eq!(named, ["model.context_size", "model.threads", "env", "tags"]);
    save(&mut instance, NOW).unwrap();
    let read = load_file(&instance.path).unwrap();
    let env: Vec<(&str, &str)> =
        read.config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("B", "2"), ("C", "3")]);
    assert_eq!((read.config.model.threads, read.config.model.path.as_str()), (3, "m.gguf"));
    assert_ne!(read.config.model.context_size, 2048);
}

#[test]
fn a_patch_that_breaks_anything_changes_nothing() {
    let scene = Scene::new();
    let mut instance = scene.create(&chat()).unwrap();
    let before = instance.config.clone();
    for patch in [
        json!({"model": {"context_size": "many"}}),
        json!({"model": {"context_size": "2048"}}),
        json!({"model": {"path": null}}),
        json!({"model": null}),
        json!({"model": "m.gguf"}),
        json!({"name": "other"}),
        json!({"tags": ["ok"], "colour": "red"}),
        json!({"server": {"port": 70000}}),
        json!({"env": {"A": {"deep": 1}}}),
    ] {
        assert!(instance.merge(&object(&patch)).is_err(), "{patch}");
        assert_eq!(instance.config, before, "{patch}");
    }
}
