//! Registries of engines, ours and the older tool's, as nobody should write them.

use std::fs;

use engine_provisioner::{Registry, older_engines, set_default};
use orch_core::{ExitCode, HomeLayout};
use proptest::prelude::*;
use serde_json::{Value, json};
use testkit::OldEngine;

use crate::{SCRIPT, temp_home};

const GOOD: &str = "5f1d2c3e-4f50-4a61-8b72-9c83ad94be01";

fn good() -> Value {
    json!({
        "id": GOOD, "version": "b7", "variant": "ubuntu-x64", "executable": "x/llama-server", "source": "path",
        "installed_at": "2026-01-01T00:00:00Z", "size_bytes": 1,
    })
}

/// Writes both registries.
fn write(home: &HomeLayout, bytes: &[u8]) {
    for folder in [home.engines(), home.root().join("bins")] {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("registry.json"), bytes).unwrap();
    }
}

/// An engine of the older tool that lies where it should.
fn place_engine(home: &HomeLayout) {
    let folder = home.root().join("bins").join(OldEngine::Main.id());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("llama-server"), SCRIPT).unwrap();
}

#[test]
fn nesting_without_end_and_size_without_end_are_refused_and_left_as_they_are() {
    let (_folder, home) = temp_home();
    let deep = "{\"engines\":".repeat(50_000);
    let long = format!("{{\"engines\": [], \"x\": \"{}\"}}", "x".repeat(5 * 1024 * 1024));
    for hostile in [deep.as_bytes(), long.as_bytes(), b"\xc3\x28", b"{\"engines\": [], \"engines\": []}"] {
        write(&home, hostile);
        assert!(Registry::load(&home).is_err());
        assert!(set_default(&home, "b7").is_err());
        assert_eq!(fs::read(home.engine_registry()).unwrap(), hostile);
    }
}

#[test]
fn a_registry_that_is_cut_anywhere_is_an_error_that_names_it() {
    let (_folder, home) = temp_home();
    let whole = json!({"engines": [good()]}).to_string();
    write(&home, whole.as_bytes());
    assert_eq!(Registry::load(&home).unwrap().list().len(), 1);
    for length in 0..whole.len() {
        write(&home, &whole.as_bytes()[..length]);
        let failure = Registry::load(&home).unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineInvalid, "cut at {length}");
        assert!(failure.message.contains("registry.json"));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!(GOOD)),
        Just(json!("../../..")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            Just("id"),
            Just("path"),
            Just("version"),
            Just("installed_at"),
            Just("size_bytes"),
            Just("x")
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_as_a_registry_never_panic_and_hide_no_engine_that_lies_there(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        let (_folder, home) = temp_home();
        write(&home, &bytes);
        let _ = Registry::load(&home).map(|registry| registry.list());
        fs::remove_file(home.engine_registry()).unwrap();
        place_engine(&home);
        let found = older_engines(&home).unwrap();
        prop_assert!(found.engines.iter().any(|engine| engine.id.to_string() == OldEngine::Main.id()));
    }

    #[test]
    fn an_entry_of_any_kind_hides_no_other(before in any_json(), after in any_json()) {
        let (_folder, home) = temp_home();
        write(&home, json!({"engines": [before, good(), after]}).to_string().as_bytes());
        let registry = Registry::load(&home).unwrap();
        prop_assert!(registry.list().iter().any(|engine| engine.id.to_string() == GOOD));

        fs::remove_file(home.engine_registry()).unwrap();
        place_engine(&home);
        let entry = json!({"id": OldEngine::Main.id(), "version": "b9"});
        let older = json!({"binaries": [before, entry, after], "default_binary_id": before});
        fs::write(home.root().join("bins/registry.json"), older.to_string()).unwrap();
        let found = older_engines(&home).unwrap();
        prop_assert!(found.engines.iter().any(|engine| engine.id.to_string() == OldEngine::Main.id()));
    }
}
