//! Homes, configs and reading.

use std::io::Read;
use std::process::Stdio;

use serde_json::json;

use super::{Named, Scene};
use crate::windows::wine::windows_path;

pub(super) const SCENARIOS: &[Named] = &[
    ("where no home is named it is the local data folder of the user", data_folder),
    ("reading where there is no home makes none", no_home),
    ("init, validate and describe show plain Windows paths", plain_paths),
    ("a config with backslashes, a byte order mark and CRLF is read", old_config),
    ("config set changes a field, and refuses a wrong one with 11", config_set),
    ("reading changes no byte of a home", reading),
    ("a reader that goes away ends a command without a complaint", reader_gone),
    ("the programs print no colours into files", no_colours),
];

fn data_folder(scene: &Scene<'_>) {
    let mut command = scene.command(&["-v", "ps"]);
    command.env_remove("LLAMA_ORCH_HOME");
    let run = testkit::run(command);
    run.expect_exit(0);
    assert!(run.stderr.contains(r"AppData\Local\llama-orch (chosen by the data folder)"), "{run}");
}

fn no_home(scene: &Scene<'_>) {
    for command in [vec!["ps"], vec!["events"], vec!["config", "validate"], vec!["engine", "list"]] {
        scene.ok(&command);
    }
    scene.run(&["daemon", "status"]).expect_exit(60);
    assert!(!scene.path("").exists());
}

fn plain_paths(scene: &Scene<'_>) {
    std::fs::rename(scene.folder().join("tiny.gguf"), scene.folder().join("Größe 1.gguf"))
        .expect("the scene's folder is writable");
    scene.ok(&["init", "erste", "--model", "Größe 1.gguf"]);
    let written = scene.text("instances/erste/config.json");
    assert!(written.contains("Größe 1.gguf") && !written.contains(r"\\?\"), "{written}");
    scene.ok(&["config", "validate"]);
    let description = scene.json(&["describe", "erste"]).to_string();
    assert!(!description.contains(r"\\\\?\\"), "{description}");
    let shown = scene.ok(&["up", "erste", "--dry-run"]);
    assert!(shown.stdout.contains("fake-llama-server.exe") && !shown.stdout.contains(r"\\?\"), "{shown}");
}

fn old_config(scene: &Scene<'_>) {
    let model = windows_path(&scene.folder().join("tiny.gguf"));
    let config = json!({"name": "old", "model": {"path": model}, "server": {"port": 8123}});
    let text = serde_json::to_string_pretty(&config).expect("a JSON value is text").replace('\n', "\r\n");
    scene.write_config(
        "00000007_6f1c2b9e-4f57-4a2e-8d3a-0b1c2d3e4f50",
        &[b"\xef\xbb\xbf", text.as_bytes()].concat(),
    );
    assert_eq!(scene.row("old")["port"], 8123);
    scene.ok(&["config", "validate"]);
}

fn config_set(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["config", "set", "a", "model.context_size=1024"]);
    assert_eq!(scene.json(&["config", "show", "a"])["config"]["model"]["context_size"], 1024);
    let before = scene.text("instances/a/config.json");
    scene.run(&["config", "set", "a", "server.port=90000"]).expect_exit(11);
    assert_eq!(scene.text("instances/a/config.json"), before);
}

fn reading(scene: &Scene<'_>) {
    scene.instance("a", &[], &json!({}));
    scene.ok(&["daemon", "start"]);
    scene.ok(&["daemon", "stop"]);
    let before = scene.picture();
    for command in [
        vec!["ps", "--all"],
        vec!["events"],
        vec!["describe", "a"],
        vec!["config", "validate"],
        vec!["config", "lint"],
        vec!["engine", "list"],
        vec!["up", "a", "--dry-run"],
    ] {
        scene.ok(&command);
    }
    scene.run(&["health", "a"]).expect_exit(20);
    scene.run(&["daemon", "status"]).expect_exit(60);
    assert!(scene.picture() == before, "a file of the home has changed");
}

fn no_colours(scene: &Scene<'_>) {
    let mut command = scene.command(&["describe", "nobody"]);
    command.env_remove("NO_COLOR");
    let run = testkit::run(command);
    run.expect_exit(13);
    assert!(run.stderr.starts_with("error: ") && !run.stderr.contains('\u{1b}'), "{run}");
}

fn reader_gone(scene: &Scene<'_>) {
    let mut command = scene.command(&["config", "schema"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("wine starts");
    drop(child.stdout.take());
    let mut said = String::new();
    let stderr = child.stderr.as_mut().expect("stderr is piped");
    stderr.read_to_string(&mut said).expect("messages are text");
    let status = child.wait().expect("the child is ours");
    // Wine itself has been heard to speak here, so the exit code says whether the program ended as it should.
    assert!(status.success() && !said.contains("error:"), "{status}: {said}");
}
