use instance_config::discover;
use orch_core::ExitCode;
use serde_json::json;

use crate::sandbox::{Sandbox, minimal_with};

const UID: &str = "6f1c2d3e-4a5b-4c6d-8e9f-0a1b2c3d4e5f";

fn names(sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
    let catalog = sandbox.catalog();
    let good = catalog.instances.iter().map(|instance| instance.config.name.to_string()).collect();
    (good, catalog.broken.iter().map(|broken| broken.name.clone()).collect())
}

#[test]
fn a_home_without_instances_is_an_empty_catalog() {
    let sandbox = Sandbox::new();
    assert_eq!(names(&sandbox), (vec![], vec![]));
    assert!(!sandbox.home.root().exists(), "discovery creates nothing");
}

#[test]
fn both_layouts_are_found_and_what_lies_beside_them_is_not() {
    let sandbox = Sandbox::new();
    sandbox.write_json(&format!("00000007_{UID}"), &minimal_with(&json!({"name": "older"})));
    sandbox.write_json("chat", &minimal_with(&json!({})));
    sandbox.write_file("instances/chat/config.json.bak-20250101-120000", "{");
    sandbox.write_file("instances/readme.txt", "x");
    sandbox.write_file("instances/empty/notes.txt", "x");
    assert_eq!(names(&sandbox), (vec!["chat".to_owned(), "older".to_owned()], vec![]));
}

#[test]
fn one_broken_config_never_disables_the_others() {
    let sandbox = Sandbox::new();
    sandbox.write_json("chat", &minimal_with(&json!({})));
    sandbox.write("torn", "{\"name\": \"torn\"");
    sandbox.write_json("wrong", &json!({"name": "wrong"}));
    let catalog = sandbox.catalog();
    assert_eq!(catalog.instances.len(), 1);
    let broken: Vec<_> = catalog.broken.iter().map(|broken| (broken.name.as_str(), broken.exit)).collect();
    assert_eq!(broken, [("torn", ExitCode::ConfigParse), ("wrong", ExitCode::ConfigInvalid)]);
    assert_eq!(catalog.select("torn").unwrap_err().exit, ExitCode::ConfigParse);
    assert_eq!(catalog.select("wrong").unwrap_err().exit, ExitCode::ConfigInvalid);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_dangling_link_in_place_of_a_config_blocks_nothing() {
    let sandbox = Sandbox::new();
    for folder in ["pipe", "link"] {
        sandbox.write_file(&format!("instances/{folder}/keep"), "");
    }
    let instances = sandbox.home.instances();
    nix::unistd::mkfifo(&instances.join("pipe/config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nowhere", instances.join("link/config.json")).unwrap();
    let exits: Vec<_> =
        sandbox.catalog().broken.iter().map(|broken| (broken.name.clone(), broken.exit)).collect();
    let expected =
        [("link".to_owned(), ExitCode::ConfigNotFound), ("pipe".to_owned(), ExitCode::ConfigParse)];
    assert_eq!(exits, expected);
}

#[test]
fn of_two_configs_with_one_name_the_one_in_its_own_folder_wins() {
    let sandbox = Sandbox::new();
    sandbox.write_json("aaa", &minimal_with(&json!({"server": {"port": 9001}})));
    sandbox.write_json("chat", &minimal_with(&json!({"server": {"port": 9002}})));
    let catalog = sandbox.catalog();
    assert_eq!(catalog.select("chat").unwrap().config.server.port, 9002);
    assert_eq!(catalog.broken.len(), 1);
    assert!(catalog.broken[0].findings[0].message.contains("already the name of"));
    assert_eq!(catalog.claiming(9001).map(|claim| claim.name).collect::<Vec<_>>(), ["chat"]);
}

fn two_instances() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write_json(
        "chat",
        &minimal_with(&json!({"instance_uid": UID, "instance_no": "00000001", "display_name": "Same"})),
    );
    let other =
        json!({"name": "embed", "instance_no": "00000002", "display_name": "Same", "server": {"port": 8002}});
    sandbox.write_json("embed", &minimal_with(&other));
    sandbox
}

#[test]
fn a_selector_is_a_uid_a_number_a_name_or_a_display_name() {
    let catalog = two_instances().catalog();
    for (selector, name) in [
        (UID, "chat"),
        (&UID.to_uppercase(), "chat"),
        ("00000002", "embed"),
        ("chat", "chat"),
        ("embed", "embed"),
    ] {
        assert_eq!(catalog.select(selector).unwrap().config.name.as_str(), name, "{selector}");
    }
}

#[test]
fn an_ambiguous_selector_is_a_usage_error_that_names_the_hits() {
    let failure = two_instances().catalog().select("Same").unwrap_err();
    assert_eq!(failure.exit, ExitCode::Usage);
    assert!(failure.message.contains("chat, embed"), "{failure}");
}

#[test]
fn an_earlier_kind_of_selector_wins_over_a_later_one() {
    let sandbox = Sandbox::new();
    sandbox.write_json("chat", &minimal_with(&json!({})));
    sandbox.write_json("other", &minimal_with(&json!({"name": "other", "display_name": "chat"})));
    assert_eq!(sandbox.catalog().select("chat").unwrap().config.name.as_str(), "chat");
}

#[test]
fn an_unknown_name_is_exit_13_with_the_nearest_one() {
    let failure = two_instances().catalog().select("embde").unwrap_err();
    assert_eq!(failure.exit, ExitCode::InstanceNotFound);
    assert_eq!(failure.hint.as_deref(), Some("did you mean embed?"));
}

#[test]
fn reading_a_home_changes_no_byte_of_it() {
    let sandbox = two_instances();
    let path = sandbox.home.instances().join("chat/config.json");
    let before = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap());
    discover(&sandbox.home).unwrap();
    assert_eq!(
        (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap()),
        before
    );
}
