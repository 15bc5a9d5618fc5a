//! Opening: the reading handle that leaves no trace, and the writing one that may create.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orch_core::HomeLayout;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode as SqliteCode, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Fault, StoreError};
use crate::schema::{self, Shape};

/// How long a statement waits for another process's transaction. Ours last milliseconds.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// The write-ahead log is cut back to this size after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 4 * 1024 * 1024;

/// Reads the state of a home. Changes no byte of it (SQLite's `-wal` and `-shm` excepted) and creates nothing.
#[derive(Debug)]
pub struct StateReader {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Reads and writes the state of a home. May be shared between threads, and any number of processes may hold
/// one at the same time.
#[derive(Debug)]
pub struct StateStore {
    reader: StateReader,
}

impl Deref for StateStore {
    type Target = StateReader;

    fn deref(&self) -> &StateReader {
        &self.reader
    }
}

impl StateReader {
    /// `None` where the home has no database yet.
    pub fn open(home: &HomeLayout) -> Result<Option<Self>, StoreError> {
        let path = home.database();
        match look(&path)? {
            Some(connection) => Ok(Some(Self { path, connection: Mutex::new(connection) })),
            None => Ok(None),
        }
    }

    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|fault| StoreError::from_fault(&self.path, fault))
    }

    /// A panic elsewhere cannot leave a half transaction behind (it rolls back), so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore {
    /// Opens the database of a home and creates it, with the home's `state` folder, where there is none.
    /// A database that is damaged, newer, or not ours is refused and left as it is.
    pub fn open(home: &HomeLayout) -> Result<Self, StoreError> {
        let path = home.database();
        // Only a look that changes nothing decides whether the file may be opened for writing at all.
        let exists = look(&path)?.is_some();
        if !exists {
            prepare_file(&home.state(), &path)?;
        }
        let sqlite = |error| StoreError::from_sqlite(&path, error);
        let mut connection = open_for_writing(&path).map_err(sqlite)?;
        if exists {
            check_pages(&connection, &path)?;
        } else {
            create_tables(&mut connection, &path)?;
        }
        Ok(Self { reader: StateReader { path, connection: Mutex::new(connection) } })
    }

    /// Runs `work` as one transaction that holds the write lock from its first read on, so that nothing can
    /// change between a read and the write that depends on it.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let outcome = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        outcome.map_err(|fault| StoreError::from_fault(&self.path, fault))
    }
}

/// A read-only connection to the database if it exists and is ours.
fn look(path: &Path) -> Result<Option<Connection>, StoreError> {
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io(path, error)),
    }
    let opened =
        open_for_reading(path).and_then(|connection| Ok((schema::inspect(&connection)?, connection)));
    let (shape, connection) = match opened {
        Ok(found) => found,
        Err(error) if is_interrupted_creation(&error) => return Ok(None),
        Err(error) => return Err(StoreError::from_sqlite(path, error)),
    };
    let path = path.to_owned();
    match shape {
        Shape::Ours => Ok(Some(connection)),
        Shape::Empty => Ok(None),
        Shape::Newer(found) => Err(StoreError::TooNew { path, found }),
        Shape::OlderTool => Err(StoreError::OlderTool { path }),
        Shape::Foreign => Err(StoreError::Foreign { path }),
        Shape::Incomplete(detail) => Err(StoreError::Corrupt { path, detail }),
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
    connection.pragma_update(None, "foreign_keys", true)?;
    // A user's `down` must survive power loss, not only kill -9; writes are few enough for a sync each.
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

fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| StoreError::from_sqlite(path, error))?;
    if finding == "ok" { Ok(()) } else { Err(StoreError::Corrupt { path: path.to_owned(), detail: finding }) }
}

/// Another process may create the tables at the same time: whoever comes second finds them.
fn create_tables(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let created = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if schema::inspect(&transaction)? == Shape::Empty {
            schema::create(&transaction)?;
        }
        transaction.commit()
    })();
    created.map_err(|error| StoreError::from_sqlite(path, error))
}

/// The folder and the file exist with their modes before SQLite sees them; it gives its side files the same.
fn prepare_file(folder: &Path, path: &Path) -> Result<(), StoreError> {
    create_private_folder(folder).map_err(|error| StoreError::from_io(folder, error))?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| StoreError::from_io(path, error))
}

fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
