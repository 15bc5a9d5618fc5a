//! `config init`: the folders and the state database of a home.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, HomeLayout};
use orchestratord::compose;
use pool_managerd::HomeDaemon;
use serde_json::json;

use crate::context::Context;
use crate::ending::CommandResult;

/// SQLite's files beside a database: they belong together.
const SIDE_FILES: [&str; 2] = ["-wal", "-shm"];

pub(super) fn run(context: &Context, force: bool) -> CommandResult {
    let home = context.home()?;
    let backup = if force { replace(home)? } else { None };
    compose::open_node(home)?;
    if context.printer.json() {
        return Ok(context.printer.document(&json!({"home": home.root(), "backup": backup}))?);
    }
    if let Some(backup) = &backup {
        context.talk.note(&format!("the old database is kept as {}", backup.display()));
    }
    Ok(context.printer.line(format_args!("home {} is ready", home.root().display()))?)
}

/// Makes a new database in the place of the old one, if there is one. Nobody can be the daemon meanwhile: it would go
/// on with the old one.
fn replace(home: &HomeLayout) -> Result<Option<PathBuf>, Failure> {
    if !home.database().exists() {
        return Ok(None);
    }
    let _place = HomeDaemon::claim(home)
        .map_err(|failure| failure.hint("stop it first: llama-orch daemon stop; engines keep running"))?;
    let backup = set_aside(home)?;
    compose::open_node(home)?;
    Ok(Some(backup))
}

/// Moves the database away under a name that no backup has yet. Running engines are found again through their handoff
/// files.
fn set_aside(home: &HomeLayout) -> Result<PathBuf, Failure> {
    let database = home.database();
    let backup = free_name(&database);
    rename(&database, &backup)?;
    for suffix in SIDE_FILES {
        let side = with_suffix(&database, suffix);
        if side.exists() {
            rename(&side, &with_suffix(&backup, suffix))?;
        }
    }
    Ok(backup)
}

fn free_name(database: &Path) -> PathBuf {
    let first = with_suffix(database, ".backup");
    let others = (1..).map(|number: u32| with_suffix(database, &format!(".backup.{number}")));
    std::iter::once(first)
        .chain(others)
        .find(|path| !path.exists())
        .expect("numbers do not run out before names do")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
            _ => ExitCode::General,
        };
        Failure::new(exit, format!("cannot move {} to {}: {error}", from.display(), to.display()))
    })
}
