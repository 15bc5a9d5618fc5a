use std::path::Path;

use instance_config::home::{self, HomeSource};
use orch_core::HomeLayout;
use serde_json::json;

use crate::sandbox::{Sandbox, minimal_with};

const DATA: &str = "/data/llama-orch";

#[test]
fn the_flag_wins_over_the_variable_and_both_over_the_working_folder() {
    let sandbox = Sandbox::new();
    sandbox.write_json("chat", &minimal_with(&json!({})));
    let folder = sandbox.home.root();
    let choice = home::find(Some(Path::new("/a")), Some("/b"), folder, Path::new(DATA));
    assert_eq!((choice.layout.root(), choice.source), (Path::new("/a"), HomeSource::Flag));
    let choice = home::find(None, Some("/b"), folder, Path::new(DATA));
    assert_eq!((choice.layout.root(), choice.source), (Path::new("/b"), HomeSource::Environment));
    let choice = home::find(None, Some(""), folder, Path::new(DATA));
    assert_eq!((choice.layout.root(), choice.source), (folder, HomeSource::WorkingFolder));
}

#[test]
fn a_relative_home_starts_from_the_working_folder() {
    let sandbox = Sandbox::new();
    let folder = sandbox.outside();
    let choice = home::find(Some(Path::new("mine")), None, &folder, Path::new(DATA));
    assert_eq!(choice.layout.root(), folder.join("mine"));
}

#[test]
fn the_nearest_ancestor_that_is_a_home_is_taken() {
    let sandbox = Sandbox::new();
    sandbox.write_json("chat", &minimal_with(&json!({})));
    let inside = sandbox.home.instances().join("chat");
    assert_eq!(home::find(None, None, &inside, Path::new(DATA)).layout, sandbox.home);
    sandbox.write_file("inner/state/state.sqlite", "");
    let inner = sandbox.home.root().join("inner");
    assert_eq!(home::find(None, None, &inner.join("state"), Path::new(DATA)).layout, HomeLayout::new(inner));
}

#[test]
fn without_any_of_these_it_is_the_data_folder() {
    let sandbox = Sandbox::new();
    let choice = home::find(None, None, &sandbox.outside(), Path::new(DATA));
    assert_eq!((choice.layout.root(), choice.source), (Path::new(DATA), HomeSource::DataFolder));
}

#[cfg(unix)]
#[test]
fn a_home_is_closed_to_others_but_a_folder_with_other_things_is_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let sandbox = Sandbox::new();
    sandbox.write_file("logs/daemon.log", "");
    open(sandbox.home.root());
    open(&sandbox.home.logs());
    home::create(&sandbox.home).unwrap();
    assert_eq!((mode(sandbox.home.root()), mode(&sandbox.home.logs())), (0o700, 0o700));
    sandbox.write_file("thesis.tex", "");
    open(sandbox.home.root());
    home::create(&sandbox.home).unwrap();
    assert_eq!((mode(sandbox.home.root()), mode(&sandbox.home.state())), (0o755, 0o700));
}
