//! Homes of the older tool, whose home ground Windows is.

use std::fs;

use serde_json::{Value, json};
use testkit::{OldEngine, OldHome, OldInstance, Shape, free_port};

use super::{Named, Scene};

pub(super) const SCENARIOS: &[Named] = &[
    ("the state of the older tool is read in place, and migrated with a backup by a writer", state),
    ("a home of the older tool is migrated in one command, and again without a change", migrate),
    ("an instance of the older tool runs with the engine it had", run),
];

/// Sixteen instances, one of each shape, and the default engine that was registered on Windows.
fn old_home(scene: &Scene<'_>) -> Vec<OldInstance> {
    let written = OldHome { instances: 16, ..OldHome::default() }.write(&scene.path(""));
    let folder = scene.path("bins").join(OldEngine::Main.id());
    let server = scene.program("fake-llama-server");
    let library = server.with_file_name("bcryptprimitives.dll");
    fs::copy(&server, folder.join("llama-server.exe")).expect("the scene's folder is writable");
    fs::copy(library, folder.join("bcryptprimitives.dll")).expect("the scene's folder is writable");
    written
}

fn state(scene: &Scene<'_>) {
    let written = old_home(scene);
    let before = scene.picture();
    let count = || scene.json(&["ps"]).as_array().map(Vec::len);
    assert_eq!(count(), Some(written.len()));
    let events = scene.json(&["events", "--instance", &written[0].name]).to_string();
    assert!(events.contains("started on port"), "{events}");
    assert!(scene.picture() == before, "reading has changed a file of the home");
    scene.ok(&["daemon", "start"]);
    scene.ok(&["daemon", "stop"]);
    // Its events are older than a daemon keeps them; the backup has them all.
    assert_eq!(count(), Some(written.len()));
    assert!(scene.path("state/state.sqlite.v3.backup").exists());
}

fn migrate(scene: &Scene<'_>) {
    old_home(scene);
    let before = scene.picture();
    let plan = scene.json(&["config", "migrate"]);
    assert_eq!(plan["applied"], false);
    assert!(scene.picture() == before, "a preview has changed a file of the home");
    let applied = scene.json(&["config", "migrate", "--apply"]);
    assert_eq!(applied["applied"], true);
    let backups = applied["configs"].as_array().into_iter().flatten();
    let backups: Vec<&str> = backups.filter_map(|config| config["backup"].as_str()).collect();
    assert!(!backups.is_empty() && backups.iter().all(|path| path.starts_with(r"Z:\")), "{backups:?}");
    let after = scene.picture();
    let again = scene.ok(&["config", "migrate", "--apply"]);
    assert!(again.stdout.contains("nothing to change"), "{again}");
    assert!(scene.picture() == after, "a second application has changed a file of the home");
}

fn run(scene: &Scene<'_>) {
    let written = old_home(scene);
    scene.ok(&["config", "migrate", "--apply"]);
    let found = written.iter().find(|instance| instance.shape == Shape::FromWindows);
    let name = found.expect("every shape occurs").name.as_str();
    scene.ok(&["config", "set", name, &format!("server.port={}", free_port())]);
    let mut up = scene.command(&["up", name]);
    up.env_remove("LLAMA_SERVER");
    testkit::run(up).expect_exit(0);
    let described: Value = scene.json(&["describe", name]);
    assert_eq!(described["runtime"]["status"], json!("running"), "{described}");
    assert_eq!(scene.processes(&[OldEngine::Main.id(), "--port"]).len(), 1);
    scene.ok(&["down", name]);
    scene.assert_nothing_runs();
}
