//! `man`: a man page for every command, made from the definition of the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command::run;

const USUAL_FOLDER: &str = "target/man";

pub(crate) fn write(folder: Option<&str>) -> Result<()> {
    let folder: PathBuf = std::path::absolute(folder.unwrap_or(USUAL_FOLDER))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["run", "--quiet", "--package", "llama-orch", "--example", "man_pages", "--"];
    run(Command::new(cargo).args(arguments).arg(&folder))?;
    eprintln!("the pages are in {}; read one: man {}", folder.display(), page(&folder).display());
    Ok(())
}

fn page(folder: &Path) -> PathBuf {
    folder.join("llama-orch.1")
}
