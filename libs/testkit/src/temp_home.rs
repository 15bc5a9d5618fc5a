//! A home folder that lives as long as one test, and everything that was started in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use orch_core::{HomeLayout, InstanceName};
use serde_json::Value;

use crate::leftovers::kill_everything_that_uses;
use crate::{ProgramRun, TinyModel, bin_path, run, write_tiny_model};

/// Variables of the person who runs the tests that would change what the programs do.
const FOREIGN_VARIABLES: [&str; 6] =
    ["LLAMA_", "LLORCH_", "ORCHESTRATORD_", "POOL_MANAGERD_", "FAKE_", "XDG_"];

/// A temporary home (0700). When it goes, every engine, shim and daemon that lives in it is killed first.
///
/// A process belongs to the home when its working folder, arguments, environment or open files name it. The
/// folder's name is random, so nothing else can.
pub struct TempHome {
    /// The parent of the home; `None` only while dropping.
    folder: Option<tempfile::TempDir>,
    layout: HomeLayout,
    scratch: PathBuf,
}

impl TempHome {
    #[expect(clippy::new_without_default, reason = "makes a folder on disk: nothing to do in passing")]
    pub fn new() -> Self {
        let folder = private_folder();
        // Programs print and compare canonical paths; some systems' temporary folder is a link.
        let top = folder.path().canonicalize().expect("the folder has just been made");
        let (home, scratch) = (top.join("home"), top.join("scratch"));
        for path in [&home, &scratch] {
            std::fs::create_dir(path).expect("a fresh private folder takes sub-folders");
            make_private(path);
        }
        Self { folder: Some(folder), layout: HomeLayout::new(home), scratch }
    }

    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    pub fn layout(&self) -> &HomeLayout {
        &self.layout
    }

    /// A folder beside the home, for what must not lie in it: models, scripts, outputs.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Writes a model that real and fake engines load, and returns its path.
    pub fn tiny_model(&self) -> PathBuf {
        let path = self.scratch.join("tiny.gguf");
        if !path.exists() {
            write_tiny_model(&path, &TinyModel::default()).expect("the scratch folder takes a file");
        }
        path
    }

    /// Writes `instances/<name>/config.json` as it stands, right or wrong, and returns its path.
    pub fn write_instance(&self, name: &str, config: &Value) -> PathBuf {
        let name = InstanceName::new(name).expect("tests of bad names write their file themselves");
        let path = self.layout.instance_config(&name);
        std::fs::create_dir_all(path.parent().expect("a config lies in a folder"))
            .expect("the home is writable");
        std::fs::write(&path, config.to_string()).expect("the home is writable");
        path
    }

    /// A command for a program of this workspace with this home chosen and nothing inherited from the person
    /// who runs the tests: no settings, no keys, no colours, no platform data folder.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(bin_path(program));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let secret = text.ends_with("_API_KEY") || text.ends_with("_TOKEN");
            if secret || FOREIGN_VARIABLES.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("LLAMA_ORCH_HOME", self.path()).env("NO_COLOR", "1").env("HOME", &self.scratch);
        command.current_dir(&self.scratch);
        command
    }

    /// Runs `llama-orch` in this home until it ends.
    pub fn llama_orch(&self, arguments: &[&str]) -> ProgramRun {
        let mut command = self.command("llama-orch");
        command.args(arguments);
        run(command)
    }
}

impl Drop for TempHome {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let top = self.scratch.parent().unwrap_or(&self.scratch);
        let survivors = kill_everything_that_uses(top);
        if std::env::var_os("TESTKIT_KEEP_HOMES").is_some() {
            eprintln!("kept: {}", folder.keep().display());
        } else if let Err(error) = folder.close() {
            eprintln!("{} stays behind: {error}", top.display());
        }
        // A second panic while unwinding would abort the test run and hide the first.
        if !std::thread::panicking() {
            assert!(survivors.is_empty(), "processes {survivors:?} outlived SIGKILL");
        }
    }
}

#[cfg(unix)]
fn private_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let owner_only = std::fs::Permissions::from_mode(0o700);
    let mut builder = tempfile::Builder::new();
    builder.prefix("llama-orch-").permissions(owner_only).tempdir().expect("the temporary folder is writable")
}

#[cfg(not(unix))]
fn private_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("llama-orch-").tempdir().expect("the temporary folder is writable")
}

#[cfg(unix)]
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let owner_only = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, owner_only).expect("the folder is ours");
}

#[cfg(not(unix))]
fn make_private(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_goes_with_its_test() {
        let home = TempHome::new();
        let path = home.path().to_path_buf();
        assert!(path.is_dir());
        drop(home);
        assert!(!path.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn whatever_was_started_in_a_home_is_killed_with_it() {
        let home = TempHome::new();
        // `trap` makes it deaf to everything but SIGKILL.
        let deaf = "trap '' TERM INT HUP; echo ready; while :; do read -r line || exec 0</dev/zero; done";
        let mut child = Command::new("sh")
            .args(["-c", deaf])
            .current_dir(home.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("sh starts");
        drop(home);
        let status = child.wait().expect("the child is ours to reap");
        assert!(!status.success());
    }
}
