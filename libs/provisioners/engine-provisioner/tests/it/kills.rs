//! An installer that is killed leaves nothing that anybody could start.

#![expect(clippy::disallowed_methods, reason = "the test kills a real process: this program, started again")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engine_provisioner::{EngineRequest, InstallRequest, Registry, Source, resolve};
use orch_core::{ExitCode, HomeLayout};
use testkit::wait_for;

use crate::local_server::{LocalServer, Reply};
use crate::releases::zip_with;
use crate::{SCRIPT, engine_folders, install, temp_home};

const HOME_VARIABLE: &str = "ENGINE_PROVISIONER_TEST_HOME";
const URL_VARIABLE: &str = "ENGINE_PROVISIONER_TEST_URL";
const PATIENCE: Duration = Duration::from_secs(20);

/// An installation in a process of its own. Does nothing when it is run as a test.
#[tokio::test]
#[ignore = "the other tests start this in a process of its own"]
async fn worker() {
    let (Ok(home), Ok(url)) = (std::env::var(HOME_VARIABLE), std::env::var(URL_VARIABLE)) else { return };
    install(&HomeLayout::new(home), InstallRequest::new(Source::Url(url))).await.unwrap();
}

fn start_worker(home: &HomeLayout, url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::worker", "--ignored", "--nocapture"])
        .env(HOME_VARIABLE, home.root())
        .env(URL_VARIABLE, url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut worker: Child) {
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// Nothing is visible now, and the next installation leaves nothing but itself.
async fn assert_nothing_half_installed(home: &HomeLayout) {
    assert!(Registry::load(home).unwrap().list().is_empty());
    let failure = resolve(&EngineRequest::default(), home, None, None).unwrap_err();
    assert_eq!(failure.exit, ExitCode::EngineNotFound);
    let server = LocalServer::start();
    server.serve("/engine.zip", Reply::Bytes(zip_with("llama-server", SCRIPT)));
    let request = InstallRequest::new(Source::Url(server.url("/engine.zip")));
    let engine = install(home, request).await.unwrap();
    assert_eq!(engine_folders(home), [engine.id.to_string()]);
}

#[tokio::test]
async fn an_installer_killed_while_it_downloads_leaves_nothing_visible() {
    let (_folder, home) = temp_home();
    let server = LocalServer::start();
    server.serve("/engine.zip", Reply::Silence);
    let worker = start_worker(&home, &server.url("/engine.zip"));
    wait_for("the download to begin", PATIENCE, || !server.requests().is_empty());
    kill(worker);
    assert_eq!(engine_folders(&home).len(), 1, "the killed one's staging folder");
    assert_nothing_half_installed(&home).await;
}

#[tokio::test]
async fn an_installer_killed_while_it_tries_the_engine_leaves_nothing_visible() {
    let (folder, home) = temp_home();
    let mark = folder.path().join("tried");
    let slow = format!("#!/bin/sh\ntouch '{}'\nexec sleep 2\n", mark.display());
    let server = LocalServer::start();
    server.serve("/engine.zip", Reply::Bytes(zip_with("llama-server", &slow)));
    let worker = start_worker(&home, &server.url("/engine.zip"));
    wait_for("the engine to be tried", PATIENCE, || Path::new(&mark).exists());
    kill(worker);
    assert_nothing_half_installed(&home).await;
}
