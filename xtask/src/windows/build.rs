//! The `.exe` files, and the one library that Wine lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tools::{C_COMPILER, TARGET, Tools};
use crate::command::run;

const PACKAGES: [&str; 4] = ["llama-orch", "orchestratord", "pool-managerd", "testkit"];
const RANDOMNESS: &str = include_str!("bcryptprimitives.c");

/// The folder with the built programs.
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.exe"))
    }
}

/// Builds what is not up to date.
pub(super) fn build(tools: Tools) -> Result<Programs> {
    let target = target_folder(tools)?;
    let mut command = tools.cargo_build();
    command.args(["--bins", "--target-dir"]).arg(&target);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    run(&mut command)?;
    let programs = Programs { folder: target.join(TARGET).join("debug") };
    build_randomness(&programs.folder)?;
    Ok(programs)
}

/// The folder that this program itself was built in; Debian's compiler gets one of its own in it, so that the two do
/// not take turns in rebuilding each other's work.
fn target_folder(tools: Tools) -> Result<PathBuf> {
    let own = std::env::current_exe().context("a running program has a file")?;
    // `<target>/<profile>/xtask`
    let target = own.ancestors().nth(2).context("xtask lies in a target folder")?;
    Ok(match tools {
        Tools::Rustup => target.to_owned(),
        Tools::Debian => target.join("windows"),
    })
}

fn build_randomness(folder: &Path) -> Result<()> {
    let (source, library) = (folder.join("bcryptprimitives.c"), folder.join("bcryptprimitives.dll"));
    if library.exists() && std::fs::read(&source).is_ok_and(|text| text == RANDOMNESS.as_bytes()) {
        return Ok(());
    }
    // An old one must not pass for the new one when the compiler fails.
    let _ = std::fs::remove_file(&library);
    std::fs::write(&source, RANDOMNESS).with_context(|| format!("cannot write {}", source.display()))?;
    run(Command::new(C_COMPILER).arg("-shared").arg("-o").arg(&library).arg(&source).arg("-ladvapi32"))
}
