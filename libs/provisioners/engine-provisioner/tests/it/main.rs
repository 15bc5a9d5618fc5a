//! Installing, probing and resolving engines as a command would, against a local server and local programs.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod files;
mod hostile;
mod kills;
mod local_server;
mod older;
mod package;
mod real_engine;
mod releases;
mod runner;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use engine_provisioner::{InstallRequest, InstalledEngine, SilentProgress, ToolRunner};
use orch_core::{Failure, HomeLayout};

use crate::runner::Programs;

/// A stand-in for an engine: it answers what a probe asks, and nothing else.
const SCRIPT: &str = "#!/bin/sh
case \"$1\" in
--version) echo 'version: 5123 (abc1234)' >&2 ;;
--help) printf -- '-m,    --model FNAME        model path\\n--port PORT                  port\\n' ;;
--list-devices) printf 'Available devices:\\n  CUDA0: Toy (1024 MiB, 512 MiB free)\\n' ;;
esac
";

/// A home and the folder that keeps it alive.
fn temp_home() -> (tempfile::TempDir, HomeLayout) {
    let folder = tempfile::tempdir().unwrap();
    let home = HomeLayout::new(folder.path().join("home"));
    (folder, home)
}

async fn install(home: &HomeLayout, request: InstallRequest) -> Result<InstalledEngine, Failure> {
    install_with(home, request, Arc::new(Programs)).await
}

async fn install_with(
    home: &HomeLayout,
    request: InstallRequest,
    runner: Arc<dyn ToolRunner>,
) -> Result<InstalledEngine, Failure> {
    engine_provisioner::install(home, request, Arc::new(SilentProgress), runner).await
}

/// The visible content of the engines folder, its bookkeeping files left out.
fn engine_folders(home: &HomeLayout) -> Vec<String> {
    let Ok(entries) = fs::read_dir(home.engines()) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn write_executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
