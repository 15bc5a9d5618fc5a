//! Opening: the reading handle that leaves no trace, and the writing one that may create and migrate.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode as SqliteCode, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{ControlError, Fault};
use crate::migrations::{self, SCHEMA_VERSION, Shape};

/// How long a statement waits for another process's transaction. Ours last milliseconds.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// The write-ahead log is cut back to this size after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 4 * 1024 * 1024;

/// Reads. Changes no byte of the file (SQLite's `-wal` and `-shm` excepted) and creates nothing.
#[derive(Debug)]
pub struct ControlReader {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Of the file as it was opened; tables of later versions are missing from it.
    version: i64,
}

/// Reads and writes. May be shared between threads, and any number of processes may hold one at the same time.
#[derive(Debug)]
pub struct ControlStore {
    reader: ControlReader,
}

impl Deref for ControlStore {
    type Target = ControlReader;

    fn deref(&self) -> &ControlReader {
        &self.reader
    }
}

impl ControlReader {
    /// `None` where there is no database yet. One of an earlier version is read in place.
    pub fn open(path: &Path) -> Result<Option<Self>, ControlError> {
        let Some((connection, shape)) = look(path)? else { return Ok(None) };
        let version = version_of(path, shape)?;
        Ok(Some(Self { path: path.to_owned(), connection: Mutex::new(connection), version }))
    }

    /// Reads tables that version `since` brought; `None` where the file is older than they are.
    pub(crate) fn read<T>(
        &self,
        since: i64,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<Option<T>, ControlError> {
        if self.version < since {
            return Ok(None);
        }
        let outcome = work(&self.lock());
        outcome.map(Some).map_err(|fault| ControlError::from_fault(&self.path, fault))
    }

    /// A number that differs from its last value when somebody else has written in between.
    pub fn changes(&self) -> Result<i64, ControlError> {
        let told = self.lock().query_row("PRAGMA data_version", [], |row| row.get(0));
        told.map_err(|error| ControlError::from_sqlite(&self.path, error))
    }

    /// A panic elsewhere cannot leave a half transaction behind (it rolls back), so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlStore {
    /// Opens the database, creates it with its folder where there is none, and brings one of an earlier version up
    /// to date in one transaction. One that is damaged, newer, or not ours is refused and left as it is.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        // Only a look that changes nothing decides whether the file may be opened for writing at all.
        let found = look(path)?;
        let exists = found.is_some();
        if let Some((_, shape)) = found {
            version_of(path, shape)?;
        } else {
            prepare_file(path)?;
        }
        let sqlite = |error| ControlError::from_sqlite(path, error);
        let mut connection = open_for_writing(path).map_err(sqlite)?;
        if exists {
            check_pages(&connection, path)?;
        }
        bring_up_to_date(&mut connection, path)?;
        let reader = ControlReader {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            version: SCHEMA_VERSION,
        };
        Ok(Self { reader })
    }

    /// Runs `work` as one transaction that holds the write lock from its first read on, so that nothing can
    /// change between a read and the write that depends on it.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, ControlError> {
        let mut connection = self.lock();
        let outcome = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        outcome.map_err(|fault| ControlError::from_fault(&self.path, fault))
    }
}

/// A read-only connection to the database, if there is one, and what it turned out to be.
fn look(path: &Path) -> Result<Option<(Connection, Shape)>, ControlError> {
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ControlError::from_io(path, error)),
    }
    let opened =
        open_for_reading(path).and_then(|connection| Ok((migrations::inspect(&connection)?, connection)));
    match opened {
        Ok((Shape::Empty, _)) => Ok(None),
        Ok((shape, connection)) => Ok(Some((connection, shape))),
        Err(error) if is_interrupted_creation(&error) => Ok(None),
        Err(error) => Err(ControlError::from_sqlite(path, error)),
    }
}

fn version_of(path: &Path, shape: Shape) -> Result<i64, ControlError> {
    let path = path.to_owned();
    match shape {
        Shape::Ours(version) => Ok(version),
        Shape::Newer(found) => Err(ControlError::TooNew { path, found }),
        Shape::Foreign => Err(ControlError::Foreign { path }),
        Shape::Empty => Ok(0),
    }
}

fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    // The last reader to leave must not move a killed writer's log into the database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// A rollback journal exists only while an empty file becomes a database (from then on it is a write-ahead
/// log): its writer is at work or was killed, and the next writer mends it.
fn is_interrupted_creation(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|inner| inner.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

fn open_for_writing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    switch_to_write_ahead_log(&connection)?;
    // A key that was revoked must not come back after a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// SQLite does not wait for a lock in this one statement, so two processes that create the same database would
/// otherwise fail each other.
fn switch_to_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(SqliteCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::park_timeout(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), ControlError> {
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| ControlError::from_sqlite(path, error))?;
    if finding == "ok" {
        Ok(())
    } else {
        Err(ControlError::Corrupt { path: path.to_owned(), detail: finding })
    }
}

/// Another process may do the same at the same time: whoever comes second finds it done.
fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), ControlError> {
    let sqlite = |error| ControlError::from_sqlite(path, error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    let version = version_of(path, migrations::inspect(&transaction).map_err(sqlite)?)?;
    if version < SCHEMA_VERSION {
        migrations::migrate(&transaction, version).map_err(sqlite)?;
    }
    transaction.commit().map_err(sqlite)
}

/// The folder and the file exist with their modes before SQLite sees them; it gives its side files the same.
fn prepare_file(path: &Path) -> Result<(), ControlError> {
    if let Some(folder) = path.parent() {
        create_private_folder(folder).map_err(|error| ControlError::from_io(folder, error))?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| ControlError::from_io(path, error))
}

fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
