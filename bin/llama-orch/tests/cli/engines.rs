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

/// Ctrl-C in the middle of a build of minutes.
#[cfg(unix)]
#[test]
fn an_interrupted_build_leaves_no_tool_behind() {
    use std::os::unix::fs::PermissionsExt;
    let home = TempHome::new();
    let (tools, pids) = (home.scratch().join("tools"), home.scratch().join("pids"));
    std::fs::create_dir(&tools).unwrap();
    let python = tools.join("python3");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*) exit 0;; esac\nsleep 1000 &\necho $$ $! > {0}.new\nmv {0}.new {0}\nwait\n",
        pids.display()
    );
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    for signal in ["-INT", "-TERM"] {
        let mut command = home.command("llama-orch");
        command.args(["engine", "install", "--source", "pypi"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let limit = std::time::Duration::from_secs(30);
        testkit::wait_for("the build to begin", limit, || pids.exists());
        let mut kill = std::process::Command::new("kill");
        kill.args([signal, &child.id().to_string()]);
        testkit::run(kill).expect_exit(0);
        let ended = testkit::wait_for_value("the command to end", limit, || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(130));
        for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
            let pid: u32 = pid.parse().unwrap();
            testkit::wait_for("the tool to end", limit, || engine_process::start_mark(pid).is_none());
        }
        std::fs::remove_file(&pids).unwrap();
    }
}
