//! Keeping the place of a database that is in use: whoever holds it open goes on writing into nowhere when the file
//! is deleted or replaced under it, and would not notice.
//!
//! What was deleted is written again, from the file that is still open; into what came in its place the rows are
//! carried over that it does not have. A file that cannot be used is left alone: work goes on in the old one, which
//! lives as long as this process, until the place is free again.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior, params};

use crate::StoreError;
use crate::access::{look, open_for_writing, prepare_file, refuse_unless_ours};
use crate::backup::{copy, remove, with_suffix};
use crate::error::Fault;
use crate::instances::InstanceRow;
use crate::runtime::RuntimeRow;

/// How the state of a home is kept right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCondition {
    Sound,
    /// The file had been deleted or replaced, and is whole again. Told once.
    Mended {
        what: &'static str,
    },
    /// The file cannot be used; what is written now goes to the old one, and is carried over when that can be.
    Unusable {
        reason: String,
    },
}

/// Which file a path leads to. Elsewhere than on Unix an open file cannot be deleted or replaced.
#[cfg(unix)]
type FileId = (u64, u64);
#[cfg(not(unix))]
type FileId = ();

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn file_id(_path: &Path) -> Option<FileId> {
    Some(())
}

/// What SQLite puts behind a database's name for its log.
const LOG: &str = "-wal";

/// Looks after the file behind one connection.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    file: Option<FileId>,
    /// The log of that file, as it was last seen.
    log: Option<FileId>,
    condition: StoreCondition,
    /// Why the last write failed, if that was the file's fault: a full disk, for example.
    failure: Option<String>,
}

impl Keeper {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: file_id(path),
            log: file_id(&with_suffix(path, LOG)),
            condition: StoreCondition::Sound,
            failure: None,
        }
    }

    /// Makes sure that the connection leads to the file at the path, as far as that can be.
    pub(crate) fn keep(&mut self, connection: &mut Connection) {
        let there = file_id(&self.path);
        let log = file_id(&with_suffix(&self.path, LOG));
        if there == self.file {
            self.log = log;
            if matches!(self.condition, StoreCondition::Unusable { .. }) {
                self.condition = StoreCondition::Sound;
            }
            return;
        }
        // The log of the old file, beside another one: SQLite would take the one for the other's.
        if log.is_some() && log == self.log {
            remove_side_files(&self.path);
        }
        let mended = match there {
            None => {
                write_again(connection, &self.path).map(|fresh| (fresh, "was deleted; it is written again"))
            }
            Some(_) => carry_over(connection, &self.path)
                .map(|fresh| (fresh, "was replaced; what it did not know is carried over")),
        };
        match mended {
            Ok((fresh, what)) => {
                *connection = fresh;
                self.file = file_id(&self.path);
                self.condition = StoreCondition::Mended { what };
            }
            Err(error) => self.condition = StoreCondition::Unusable { reason: error.to_string() },
        }
    }

    pub(crate) fn wrote<T>(&mut self, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => self.failure = None,
            Err(StoreError::Busy { .. } | StoreError::UnknownInstance { .. }) => {}
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    /// After a failed write only another write tells whether the next one will do.
    pub(crate) fn must_try(&self) -> bool {
        self.failure.is_some()
    }

    pub(crate) fn tell(&mut self) -> StoreCondition {
        if let (StoreCondition::Sound, Some(reason)) = (&self.condition, &self.failure) {
            return StoreCondition::Unusable { reason: reason.clone() };
        }
        match &self.condition {
            StoreCondition::Mended { .. } => std::mem::replace(&mut self.condition, StoreCondition::Sound),
            other => other.clone(),
        }
    }
}

fn remove_side_files(path: &Path) {
    for suffix in [LOG, "-shm"] {
        let _ = fs::remove_file(with_suffix(path, suffix));
    }
}

/// The deleted file lives on behind the connection: all of it, events and history too, comes back.
fn write_again(connection: &Connection, path: &Path) -> Result<Connection, StoreError> {
    let io = |error| StoreError::from_io(path, error);
    let rescue = with_suffix(path, ".rescue");
    remove(&rescue)?;
    prepare_file(path.parent().unwrap_or(Path::new("")), &rescue)?;
    let placed = copy(connection, &rescue).and_then(|()| {
        // They belong to a deleted file; a new one must not meet them. Beside a file that somebody made meanwhile they
        // are its own.
        if !path.exists() {
            remove_side_files(path);
        }
        // Fails when somebody made a new one meanwhile, into which the next look carries over.
        match fs::hard_link(&rescue, path) {
            // A file system without hard links.
            Err(_) if !path.exists() => fs::rename(&rescue, path),
            placed => placed,
        }
        .map_err(io)
    });
    let _ = fs::remove_file(&rescue);
    placed?;
    open_for_writing(path).map_err(|error| StoreError::from_sqlite(path, error))
}

/// Opens what came in the place of the old file, and adds the instances that it does not know. What it does know
/// stands: somebody wrote it later.
fn carry_over(old: &Connection, path: &Path) -> Result<Connection, StoreError> {
    let sqlite = |error| StoreError::from_sqlite(path, error);
    let empty = || StoreError::Corrupt { path: path.to_owned(), detail: "it is empty".to_owned() };
    // Judged before SQLite sees it: beside an empty file it would throw the log of the old one away.
    if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Err(empty());
    }
    let (_, shape) = look(path)?.ok_or_else(empty)?;
    refuse_unless_ours(path, shape)?;
    let known = crate::instances::all(old).and_then(|instances| Ok((instances, crate::runtime::all(old)?)));
    let (instances, runtimes) = known.map_err(|fault: Fault| StoreError::from_fault(path, fault))?;
    let mut fresh = open_for_writing(path).map_err(sqlite)?;
    let transaction = fresh.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    for instance in &instances {
        if add_instance(&transaction, instance).map_err(sqlite)? {
            for row in runtimes.iter().filter(|row| row.name == instance.name) {
                add_runtime(&transaction, row).map_err(sqlite)?;
            }
        }
    }
    transaction.commit().map_err(sqlite)?;
    Ok(fresh)
}

fn add_instance(connection: &Connection, row: &InstanceRow) -> rusqlite::Result<bool> {
    let added = connection.execute(
        "INSERT OR IGNORE INTO instances (name, uid, config_path, desired_state, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            row.name.as_str(),
            row.uid,
            row.config_path.to_string_lossy(),
            row.desired_state.label(),
            row.created_at.0,
            row.updated_at.0
        ],
    )?;
    Ok(added > 0)
}

fn add_runtime(connection: &Connection, row: &RuntimeRow) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO runtime VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20)",
        params![
            row.name.as_str(),
            row.replica.to_string(),
            row.pid,
            row.process_started_at,
            row.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned()),
            row.port,
            row.cmdline,
            row.engine_version,
            row.status.label(),
            row.health.label(),
            row.started_at.map(|at| at.0),
            row.last_seen_at.map(|at| at.0),
            row.last_health_ok_at.map(|at| at.0),
            row.restarts,
            row.restart_attempts,
            row.last_restart_at.map(|at| at.0),
            row.next_restart_at.map(|at| at.0),
            row.last_exit_code,
            row.last_error,
            row.config_hash,
        ],
    )?;
    Ok(())
}
