//! Engines that are already on this machine.

use std::fs;

use engine_provisioner::{
    InstallRequest, Registry, Source, known_profile, probe, probe_and_remember, remove, set_default,
};
use orch_core::{ExitCode, Failure};
use sha2::{Digest, Sha256};

use crate::runner::{Programs, Scripted, ended};
use crate::{SCRIPT, install, temp_home, write_executable};

#[tokio::test]
async fn a_build_is_registered_where_it_lies_and_removal_leaves_its_files() {
    let (folder, home) = temp_home();
    let executable = folder.path().join("llama.cpp/build/bin/llama-server");
    write_executable(&executable, SCRIPT);
    let by_folder = InstallRequest::new(Source::Path(folder.path().join("llama.cpp")));
    let first = install(&home, by_folder).await.unwrap();
    assert_eq!((&first.executable, first.version.as_str()), (&executable, "b5123"));

    let by_file = Source::Path(executable.clone());
    let renamed = InstallRequest { version: Some("mine".to_owned()), ..InstallRequest::new(by_file) };
    let second = install(&home, renamed).await.unwrap();
    assert_eq!(
        (second.id, second.version.as_str()),
        (first.id, "mine"),
        "the same executable, not a second one"
    );
    assert_eq!(Registry::load(&home).unwrap().list().len(), 1);

    set_default(&home, "mine").unwrap();
    remove(&home, "mine").unwrap();
    assert!(executable.exists());
    assert!(Registry::load(&home).unwrap().list().is_empty());
}

#[tokio::test]
async fn a_path_without_an_engine_is_not_found_and_one_that_does_not_start_is_invalid() {
    let (folder, home) = temp_home();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let plain = folder.path().join("plain/llama-server");
    fs::create_dir(plain.parent().unwrap()).unwrap();
    fs::write(&plain, "not executable").unwrap();
    let failing = folder.path().join("failing/llama-server");
    write_executable(&failing, "#!/bin/sh\necho no library >&2\nexit 127\n");
    let cases = [
        (folder.path().join("missing"), ExitCode::EngineNotFound),
        (empty, ExitCode::EngineNotFound),
        (plain, ExitCode::EngineInvalid),
        (failing, ExitCode::EngineInvalid),
    ];
    for (path, exit) in cases {
        let failure = install(&home, InstallRequest::new(Source::Path(path.clone()))).await.unwrap_err();
        assert_eq!(failure.exit, exit, "{}: {failure}", path.display());
    }
    assert!(Registry::load(&home).unwrap().list().is_empty());
}

#[tokio::test]
async fn the_checksum_of_an_executable_is_compared() {
    let (folder, home) = temp_home();
    let executable = folder.path().join("llama-server");
    write_executable(&executable, SCRIPT);
    let with = |sha256: String| InstallRequest {
        sha256: Some(sha256),
        ..InstallRequest::new(Source::Path(executable.clone()))
    };
    let exit = |outcome: Result<_, Failure>| {
        outcome.map(|_: engine_provisioner::InstalledEngine| ()).map_err(|f| f.exit)
    };
    assert_eq!(exit(install(&home, with("0".repeat(64))).await), Err(ExitCode::EngineInvalid));
    assert_eq!(exit(install(&home, with("abc".to_owned())).await), Err(ExitCode::Usage));
    let right = hex::encode(Sha256::digest(SCRIPT));
    assert_eq!(exit(install(&home, with(format!("SHA256:{right}"))).await), Ok(()));
}

#[test]
fn an_executable_is_asked_once_and_again_when_it_has_changed() {
    let (folder, home) = temp_home();
    let executable = folder.path().join("llama-server");
    write_executable(&executable, SCRIPT);
    assert!(known_profile(&home, &executable).is_none());
    assert!(!home.root().exists(), "looking creates nothing");
    let profile = probe_and_remember(&home, &executable, &Programs).unwrap();
    assert_eq!(known_profile(&home, &executable), Some(profile));
    write_executable(&executable, &SCRIPT.replace("5123", "51234"));
    assert_eq!(known_profile(&home, &executable), None);
    let profile = probe_and_remember(&home, &executable, &Programs).unwrap();
    assert_eq!(profile.version.as_deref(), Some("b51234"));
}

#[test]
fn a_damaged_profile_file_costs_a_probe_and_nothing_more() {
    let (folder, home) = temp_home();
    let executable = folder.path().join("llama-server");
    write_executable(&executable, SCRIPT);
    fs::create_dir_all(home.engines()).unwrap();
    fs::write(home.engines().join("profiles.json"), "{{{").unwrap();
    assert!(known_profile(&home, &executable).is_none());
    probe_and_remember(&home, &executable, &Programs).unwrap();
    assert!(known_profile(&home, &executable).is_some());
}

#[test]
fn an_engine_that_only_says_its_version_refuses_no_flag() {
    let mute = Scripted::new(|call| {
        let knows = call.args == ["--version"];
        Ok(if knows { ended(0, "version: 9 (x)") } else { ended(1, "unknown argument") })
    });
    let profile = probe("engine".as_ref(), &mute).unwrap();
    assert!(profile.flags.is_empty() && profile.devices.is_empty());
    assert!(profile.knows_flag("--anything"));
}

#[test]
fn an_executable_that_is_busy_for_a_moment_is_asked_again() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let busy_once = Scripted::new(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => Err(std::io::ErrorKind::ExecutableFileBusy.into()),
        _ => Ok(ended(0, "version: 9 (x)")),
    });
    assert_eq!(probe("engine".as_ref(), &busy_once).unwrap().version.as_deref(), Some("b9"));
}

#[test]
fn an_executable_that_is_killed_or_hangs_is_no_engine() {
    let killed = Scripted::new(|_| Ok(engine_provisioner::ToolRun::default()));
    let hanging = Scripted::new(|_| Err(std::io::ErrorKind::TimedOut.into()));
    for runner in [killed, hanging] {
        assert_eq!(probe("engine".as_ref(), &runner).unwrap_err().exit, ExitCode::EngineInvalid);
    }
}

#[test]
fn an_installation_may_run_as_a_task_of_its_own() {
    fn assert_send(_: impl Send) {}
    let (_folder, home) = temp_home();
    assert_send(install(&home, InstallRequest::new(Source::Github)));
}
