//! A complete copy of a database beside it, under a name that no other backup has.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::StepResult;

use crate::StoreError;
use crate::access::{check_integrity, prepare_file};

const COMPARED_AT_ONCE: u64 = 1024 * 1024;

/// A backup that has been taken.
#[derive(Debug)]
pub(crate) struct Backup {
    path: PathBuf,
    /// An earlier attempt had made this very copy before it was cut short.
    existed: bool,
}

impl Backup {
    /// Copies the database as the connection sees it to `<database>.v<version>.backup`, or where that exists, to the
    /// same with `.1`, `.2` … behind it. Under its name it is complete, whenever the program is killed.
    pub(crate) fn take(source: &Connection, database: &Path, version: u32) -> Result<Self, StoreError> {
        let stem = with_suffix(database, &format!(".v{version}.backup"));
        let part = with_suffix(&stem, ".part");
        remove(&part)?;
        let placed = copy(source, &part).and_then(|()| place(&part, &stem));
        let _ = fs::remove_file(&part);
        placed
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the copy away again, unless it was there before.
    pub(crate) fn discard(self) {
        if !self.existed {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// Writes the database, as the connection sees it, to a new file of its own, checked and on disk.
pub(crate) fn copy(source: &Connection, target: &Path) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::from_sqlite(target, error);
    prepare_file(target.parent().unwrap_or(Path::new("")), target)?;
    let mut connection = Connection::open(target).map_err(sqlite)?;
    let backup = rusqlite::backup::Backup::new(source, &mut connection).map_err(sqlite)?;
    // All pages in one step: the source is locked, or asks nobody.
    let outcome = backup.step(-1).map_err(sqlite)?;
    drop(backup);
    if outcome != StepResult::Done {
        return Err(StoreError::Busy { path: target.to_owned() });
    }
    // One file that stands for itself: without this its log would be a second one.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(sqlite)?;
    check_integrity(&connection, target)?;
    connection.close().map_err(|(_, error)| sqlite(error))?;
    // Windows syncs only what is open for writing.
    let synced =
        fs::File::options().read(true).write(cfg!(windows)).open(target).and_then(|file| file.sync_all());
    synced.map_err(|error| StoreError::from_io(target, error))
}

/// Gives a finished copy its name. A copy of the same bytes that lies there already is as good.
fn place(part: &Path, stem: &Path) -> Result<Backup, StoreError> {
    let io = |error| StoreError::from_io(part, error);
    for path in candidates(stem) {
        match fs::hard_link(part, &path) {
            Ok(()) => return Ok(Backup { path, existed: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if are_alike(part, &path).unwrap_or(false) {
                    return Ok(Backup { path, existed: true });
                }
            }
            // A file system without hard links: the look and the move are two steps there.
            Err(_) if !path.exists() => {
                fs::rename(part, &path).map_err(io)?;
                return Ok(Backup { path, existed: false });
            }
            Err(_) => {}
        }
    }
    unreachable!("numbers do not run out before names do")
}

fn are_alike(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        one.by_ref().take(COMPARED_AT_ONCE).read_to_end(&mut left)?;
        other.by_ref().take(COMPARED_AT_ONCE).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

fn candidates(stem: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered = (1_u32..).map(|number| with_suffix(stem, &format!(".{number}")));
    std::iter::once(stem.to_owned()).chain(numbered)
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::from_io(path, error)),
        _ => Ok(()),
    }
}
