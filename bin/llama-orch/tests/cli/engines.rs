//! `engine`: versions of llama-server in a home.

use testkit::{TempHome, cli_snapshot, fake_engine};

use crate::scene::{add_instance, home_with_engine};

#[test]
fn a_build_of_ones_own_is_registered_used_and_removed() {
    let home = TempHome::new();
    let engine = fake_engine().display().to_string();
    let installed = home.llama_orch(&["engine", "install", &engine, "--json"]).expect_exit(0).json();
    assert_eq!((&installed["source"], &installed["is_default"]), (&"path".into(), &false.into()));
    let id = installed["id"].as_str().unwrap().to_owned();
    home.llama_orch(&["engine", "use", &id]).expect_exit(0);
    let list = home.llama_orch(&["binary", "list", "--json"]).expect_exit(0).json();
    assert_eq!((&list[0]["id"], &list[0]["is_default"]), (&id.as_str().into(), &true.into()));
    let info = home.llama_orch(&["engine", "info", "--json"]).expect_exit(0).json();
    assert_eq!(info["installed"]["id"], id.as_str());
    assert!(info["flags"].as_array().unwrap().len() > 10);
    home.llama_orch(&["engine", "remove", &id[..8]]).expect_exit(0);
    assert_eq!(home.llama_orch(&["engine", "list", "--json"]).json(), serde_json::json!([]));
    assert!(fake_engine().exists(), "it was registered where it lies");
}

#[test]
fn an_engine_that_somebody_needs_is_not_removed() {
    let home = home_with_engine();
    add_instance(&home, "chat", &[]);
    let id = home.llama_orch(&["engine", "list", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    home.llama_orch(&["up", "chat"]).expect_exit(0);
    home.llama_orch(&["engine", "remove", &id]).expect_exit(21);
    home.llama_orch(&["down", "chat"]).expect_exit(0);
    home.llama_orch(&["config", "set", "chat", &format!("binary.binary_id={id}")]).expect_exit(0);
    assert_ne!(home.llama_orch(&["engine", "remove", &id]).exit_code, Some(0));
    home.llama_orch(&["engine", "remove", &id, "--force"]).expect_exit(0);
    home.llama_orch(&["up", "chat"]).expect_exit(50);
}

#[test]
fn devices_are_those_that_the_engine_lists() {
    let home = home_with_engine();
    let mut command = home.command("llama-orch");
    command.args(["engine", "devices", "--json"]);
    command.env("FAKE_DEVICES", "CUDA0: NVIDIA A10 (24564 MiB, 24000 MiB free)");
    let devices = testkit::run(command).expect_exit(0).json();
    assert_eq!(devices[0]["id"], "CUDA0");
}

#[test]
fn engines_that_are_not_there_are_told() {
    let home = TempHome::new();
    let nowhere = home.scratch().join("nowhere").display().to_string();
    home.llama_orch(&["engine", "install", &nowhere]).expect_exit(50);
    home.llama_orch(&["engine", "install", "--source", "path"]).expect_exit(2);
    cli_snapshot!(home, ["engine", "use", "b1"], @r"
    exit code: 50
    ----- stdout -----

    ----- stderr -----
    error: no installed engine is called b1
    hint: list them with: llama-orch engine list
    ");
}
