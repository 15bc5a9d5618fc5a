//! Engines of the older Python tool, taken over.

use std::fs;
use std::path::Path;

use engine_provisioner::{
    EngineRequest, OlderEngine, OlderEngines, Registry, Variant, older_engines, resolve, set_default,
};
use orch_core::{ExitCode, HomeLayout, UnixMillis};
use testkit::{OldEngine, OldHome};
use uuid::Uuid;

use crate::runner::Programs;
use crate::{SCRIPT, temp_home};

const NOW: UnixMillis = UnixMillis(1_770_000_000_000);

fn old_home() -> (tempfile::TempDir, HomeLayout) {
    let (folder, home) = temp_home();
    let engine = folder.path().join("engine-that-runs");
    fs::write(&engine, SCRIPT).unwrap();
    make_executable(&engine);
    OldHome { instances: 0, engine: Some(engine), ..OldHome::default() }.write(home.root());
    (folder, home)
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn id(engine: OldEngine) -> Uuid {
    Uuid::parse_str(engine.id()).unwrap()
}

fn found(older: &OlderEngines, engine: OldEngine) -> &OlderEngine {
    older.engines.iter().find(|found| found.id == id(engine)).unwrap()
}

fn take_over(home: &HomeLayout) -> OlderEngines {
    let older = older_engines(home).unwrap();
    older.take_over(home, &Programs, NOW).unwrap();
    older
}

fn pinned(home: &HomeLayout, engine: OldEngine) -> Result<std::path::PathBuf, ExitCode> {
    let request = EngineRequest { binary_id: Some(id(engine)), ..EngineRequest::default() };
    resolve(&request, home, None, None).map(|found| found.executable).map_err(|failure| failure.exit)
}

#[test]
fn every_usable_engine_is_found_whatever_was_written_about_it() {
    let (_folder, home) = old_home();
    let older = older_engines(&home).unwrap();
    let usable = [
        OldEngine::Main,
        OldEngine::Again,
        OldEngine::FromSource,
        OldEngine::OddIdentity,
        OldEngine::Unregistered,
    ];
    assert_eq!(older.engines.len(), usable.len(), "{:?}", older.engines);
    for engine in usable {
        assert!(found(&older, engine).executable.is_file());
    }
    assert_eq!(older.default, Some(id(OldEngine::Main)));
    assert!(found(&older, OldEngine::Again).becomes_executable);
    assert_eq!(found(&older, OldEngine::Again).installed_at.as_deref(), Some("2025-10-22T10:00:00Z"));
    assert_eq!(found(&older, OldEngine::Unregistered).version.as_deref(), Some("b6650"));
    assert_eq!(found(&older, OldEngine::FromSource).source, "path");
}

#[test]
fn engines_that_cannot_be_used_are_told() {
    let (_folder, home) = old_home();
    let older = older_engines(&home).unwrap();
    let told: Vec<&str> = older.remarks.iter().map(|remark| remark.message.as_str()).collect();
    let lost = OldEngine::Lost.id();
    let other = OldEngine::OtherSystem.id();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], format!("engine b6600 ({lost}) is registered, its files are gone"));
    assert_eq!(told[1], format!("engine b6605 ({other}) is built for another system (llama-server.exe)"));
    assert!(told[2].ends_with("is built for another system (llama-server.exe)"), "{told:?}");
    assert!(older.remarks.iter().all(|remark| remark.suggestion.is_some()));
}

#[test]
fn looking_changes_nothing() {
    let (_folder, home) = old_home();
    older_engines(&home).unwrap();
    assert!(!home.engines().exists());
}

#[test]
fn ids_go_on_naming_the_engines_they_named() {
    let (_folder, home) = old_home();
    take_over(&home);
    for engine in [OldEngine::Main, OldEngine::Again, OldEngine::FromSource, OldEngine::OddIdentity] {
        let executable = pinned(&home, engine).unwrap();
        assert!(
            executable.starts_with(home.root().join("bins").join(engine.id())),
            "{}",
            executable.display()
        );
    }
    assert_eq!(pinned(&home, OldEngine::Lost), Err(ExitCode::EngineNotFound));
    assert_eq!(Registry::load(&home).unwrap().default().unwrap().id, id(OldEngine::Main));
}

#[test]
fn a_variant_of_another_system_counts_as_the_hosts() {
    let (_folder, home) = old_home();
    take_over(&home);
    let request = EngineRequest { variant: Some("win-vulkan-x64".to_owned()), ..EngineRequest::default() };
    assert_eq!(resolve(&request, &home, None, None).unwrap().id, Some(id(OldEngine::Main)));
}

#[test]
fn a_second_time_there_is_nothing_to_take_over() {
    let (_folder, home) = old_home();
    take_over(&home);
    let before = fs::read(home.engine_registry()).unwrap();
    let again = take_over(&home);
    assert!(again.is_empty());
    assert_eq!(fs::read(home.engine_registry()).unwrap(), before);
}

#[test]
fn a_default_that_somebody_chose_stays() {
    let (_folder, home) = old_home();
    take_over(&home);
    set_default(&home, OldEngine::FromSource.id()).unwrap();
    take_over(&home);
    assert_eq!(Registry::load(&home).unwrap().default().unwrap().id, id(OldEngine::FromSource));
}

#[test]
fn the_home_may_be_moved_afterwards() {
    let (folder, home) = old_home();
    take_over(&home);
    let moved = HomeLayout::new(folder.path().join("moved"));
    fs::rename(home.root(), moved.root()).unwrap();
    assert!(pinned(&moved, OldEngine::Main).unwrap().starts_with(moved.root()));
}

#[test]
fn the_oldest_homes_have_one_engine_and_no_word_about_it() {
    let (_folder, home) = temp_home();
    let executable = home.root().join("bin/llama-server");
    fs::create_dir_all(executable.parent().unwrap()).unwrap();
    fs::write(&executable, SCRIPT).unwrap();
    let older = take_over(&home);
    assert_eq!((older.engines.len(), older.remarks.len()), (1, 0));
    let engines = Registry::load(&home).unwrap().list();
    assert_eq!(engines[0].executable, executable);
    assert_eq!(engines[0].version, "b5123", "asked for, because nobody wrote it down");
    assert_eq!(engines[0].variant, Variant::host().to_string());
    assert!(take_over(&home).is_empty());
}

#[test]
fn a_damaged_registry_is_told_and_the_folders_speak_for_themselves() {
    let (_folder, home) = old_home();
    for damage in ["{\"binaries\": [", "[]", "{\"binaries\": [{\"id\": \"x\"}, 7, null]}", "\u{1}"] {
        fs::write(home.root().join("bins/registry.json"), damage).unwrap();
        let older = older_engines(&home).unwrap();
        assert_eq!(older.engines.len(), 5, "{damage}");
        assert!(found(&older, OldEngine::Main).version.is_none());
    }
}

#[test]
fn a_path_that_leads_out_of_the_home_is_not_searched() {
    let (folder, home) = temp_home();
    let elsewhere = folder.path().join("elsewhere/deep/er/llama-server");
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::write(&elsewhere, SCRIPT).unwrap();
    make_executable(&elsewhere);
    fs::create_dir_all(home.root().join("bins")).unwrap();
    let registry = |path: &str| {
        let entry = serde_json::json!({"binaries": [{"id": OldEngine::Main.id(), "path": path}]});
        fs::write(home.root().join("bins/registry.json"), entry.to_string()).unwrap();
    };
    registry("../elsewhere");
    assert!(older_engines(&home).unwrap().engines.is_empty());
    registry("../elsewhere/deep/er");
    assert_eq!(older_engines(&home).unwrap().engines[0].executable, elsewhere);
}
