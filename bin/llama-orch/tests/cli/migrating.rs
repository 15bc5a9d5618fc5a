//! `config migrate`: a home of the older tool becomes one of ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::{OldEngine, OldHome, OldInstance, Shape, TempHome, free_port, real_llama_server};

use crate::scene::picture;

fn old_home(instances: usize) -> (TempHome, Vec<OldInstance>) {
    let home = TempHome::new();
    let engine = Some(real_llama_server());
    let written = OldHome { instances, engine, ..OldHome::default() }.write(home.path());
    (home, written)
}

fn count(document: &Value, key: &str) -> usize {
    document[key].as_array().unwrap().len()
}

/// How many findings there are of each severity.
fn severities(document: &Value) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for finding in document["findings"].as_array().unwrap() {
        *counts.entry(finding["severity"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

fn one(written: &[OldInstance], shape: Shape) -> &OldInstance {
    written.iter().find(|instance| instance.shape == shape).unwrap()
}

#[test]
fn a_preview_shows_everything_and_changes_no_byte() {
    let (home, _) = old_home(64);
    let before = picture(home.path());
    let plan = home.llama_orch(&["config", "migrate", "--json"]).expect_exit(0).json();
    assert_eq!((count(&plan, "configs"), count(&plan, "engines")), (12, 5));
    assert_eq!((&plan["applied"], &plan["default_engine"]), (&json!(false), &json!(OldEngine::Main.id())));
    assert_eq!((&plan["state"]["from"], count(&plan["state"], "instances")), (&json!(3), 64));
    let run = home.llama_orch(&["config", "migrate"]);
    run.expect_exit(0);
    assert!(run.stdout.contains("12 of 64 configs, 5 engines, the state database would change"), "{run}");
    assert_eq!(picture(home.path()), before);
}

#[test]
fn after_one_application_there_is_nothing_left_to_do() {
    let (home, written) = old_home(64);
    let applied = home.llama_orch(&["config", "migrate", "--apply", "--json"]).expect_exit(0).json();
    assert_eq!((&applied["applied"], count(&applied, "configs")), (&json!(true), 12));
    for config in applied["configs"].as_array().unwrap() {
        assert!(std::path::Path::new(config["backup"].as_str().unwrap()).is_file(), "{config}");
    }
    let before = picture(home.path());
    let again = home.llama_orch(&["config", "migrate", "--apply"]);
    again.expect_exit(0);
    assert!(again.stdout.ends_with("nothing to change\n"), "{again}");
    assert_eq!(picture(home.path()), before);
    let events = home.llama_orch(&["events", "--type", "migrated", "--json"]).expect_exit(0).json();
    assert_eq!(events.as_array().unwrap().len(), 2, "one of the database, one of the rest: {events}");
    let rows = home.llama_orch(&["ps", "--json"]).expect_exit(0).json();
    assert_eq!(rows.as_array().unwrap().len(), written.len());
}

#[test]
fn findings_of_a_home_are_the_documented_ones_and_stop_nothing() {
    let (home, written) = old_home(16);
    let applied = home.llama_orch(&["config", "migrate", "--apply", "--json"]).expect_exit(0).json();
    let told: Vec<(Option<&str>, Option<&str>)> = applied["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .map(|finding| (finding["instance"].as_str(), finding["field"].as_str()))
        .collect();
    let name = |shape| Some(one(&written, shape).name.as_str());
    let expected = [
        (name(Shape::Newest), Some("server.port")),
        (name(Shape::ClaimedPort), Some("server.port")),
        (name(Shape::LostEngine), Some("binary.binary_id")),
    ];
    assert_eq!(told, expected);
    assert_eq!(severities(&applied)["info"], 4, "{}", applied["findings"]);
    // The linter, which asks the engines themselves, knows nothing worse.
    let report = home.llama_orch(&["config", "lint", "--json"]).expect_exit(11).json();
    assert_eq!(severities(&report)["error"], expected.len(), "{}", report["findings"]);
}

#[test]
fn instances_of_an_older_home_run_with_the_engine_they_had() {
    let (home, written) = old_home(16);
    home.llama_orch(&["config", "migrate", "--apply"]).expect_exit(0);
    for shape in [Shape::FromWindows, Shape::NamedFolder, Shape::AddressInArgs, Shape::RemovedFlags] {
        let name = one(&written, shape).name.as_str();
        let port = format!("server.port={}", free_port());
        home.llama_orch(&["config", "set", name, &port]).expect_exit(0);
        home.llama_orch(&["up", name]).expect_exit(0);
        let shown = home.llama_orch(&["describe", name, "--json"]).expect_exit(0).json();
        assert_eq!(shown["runtime"]["status"], "running", "{shown}");
        home.llama_orch(&["down", name]).expect_exit(0);
    }
}

#[test]
fn selectors_of_the_older_tool_go_on_working() {
    let (home, written) = old_home(16);
    home.llama_orch(&["config", "migrate", "--apply"]).expect_exit(0);
    let instance = one(&written, Shape::NamedFolder);
    for selector in ["00000002", "5eed0001-51ce-4a0b-8f00-000000c0ffef", "model-01", "Model 1"] {
        let shown = home.llama_orch(&["config", "show", selector, "--json"]).expect_exit(0).json();
        assert_eq!(shown["name"], json!(instance.name), "{selector}");
    }
}

#[test]
fn a_truncated_config_a_damaged_catalog_and_a_damaged_registry_are_findings() {
    let (home, written) = old_home(16);
    std::fs::write(&written[3].config, "{\"name\": \"model-03\", ").unwrap();
    std::fs::write(home.path().join("state/instance_catalog.sqlite"), "damaged, and long enough to look at")
        .unwrap();
    std::fs::write(home.path().join("bins/registry.json"), "{\"binaries\": [").unwrap();
    let applied = home.llama_orch(&["config", "migrate", "--apply", "--json"]).expect_exit(0).json();
    let messages: Vec<&str> =
        applied["findings"].as_array().unwrap().iter().filter_map(|one| one["message"].as_str()).collect();
    for told in ["is not JSON", "instance_catalog.sqlite", "registry.json cannot be read"] {
        assert!(messages.iter().any(|message| message.contains(told)), "{told}: {messages:?}");
    }
    assert_eq!(std::fs::read_to_string(&written[3].config).unwrap(), "{\"name\": \"model-03\", ");
    assert_eq!(home.llama_orch(&["ps", "--json"]).expect_exit(0).json().as_array().unwrap().len(), 15);
}

#[test]
fn a_database_that_cannot_be_used_holds_nothing_else_back() {
    let (home, written) = old_home(16);
    let database = home.layout().database();
    std::fs::write(&database, "damaged, and long enough to be looked at").unwrap();
    home.llama_orch(&["config", "migrate"]).expect_exit(0);
    home.llama_orch(&["config", "migrate", "--apply"]).expect_exit(34);
    assert_eq!(std::fs::read_to_string(database).unwrap(), "damaged, and long enough to be looked at");
    let plan = home.llama_orch(&["config", "migrate", "--json"]).expect_exit(0).json();
    assert_eq!((count(&plan, "configs"), count(&plan, "engines")), (0, 0));
    assert!(one(&written, Shape::NamedFolder).config.with_file_name("config.json.v1.backup").exists());
}

#[test]
fn what_ran_under_the_older_tool_and_is_gone_is_stopped_with_its_history_kept() {
    let (home, _) = old_home(16);
    home.llama_orch(&["config", "migrate", "--apply"]).expect_exit(0);
    let rows = home.llama_orch(&["ps", "--json"]).expect_exit(0).json();
    assert!(rows.as_array().unwrap().iter().all(|row| row["status"] == "stopped"), "{rows}");
    let events = home.llama_orch(&["events", "--instance", "model-00", "--json"]).expect_exit(0).json();
    assert!(events.to_string().contains("started on port"), "{events}");
    assert!(home.layout().state().join("state.sqlite.v3.backup").exists());
}

#[test]
fn a_home_that_is_not_there_is_up_to_date_and_stays_away() {
    let home = TempHome::new();
    std::fs::remove_dir(home.path()).unwrap();
    let run = home.llama_orch(&["config", "migrate", "--apply"]);
    run.expect_exit(0);
    assert!(run.stdout.contains("nothing to change"), "{run}");
    assert!(!home.path().exists());
}

#[test]
fn logs_of_the_older_tool_are_found_when_logs_are_cleaned() {
    let (home, written) = old_home(1);
    let old = home.path().join("logs").join(&written[0].name).join("stdout.20251021_101500.log");
    let beside = old.with_file_name("stdout.notes.log");
    std::fs::write(&beside, "mine").unwrap();
    home.llama_orch(&["logs", "clean", "--older-than", "1d"]).expect_exit(0);
    assert!(old.exists());
    home.llama_orch(&["logs", "clean", "--older-than", "0s"]).expect_exit(0);
    assert!(!old.exists());
    assert!(beside.exists());
}
