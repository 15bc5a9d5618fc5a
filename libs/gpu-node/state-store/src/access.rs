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
use crate::keeper::{Keeper, StoreCondition};
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
    open: Mutex<Open>,
}

/// Reads and writes the state of a home. May be shared between threads, and any number of processes may hold
/// one at the same time.
#[derive(Debug)]
pub struct StateStore {
    reader: StateReader,
}

/// A connection, and for one that writes, whoever looks that it goes on leading to the file.
#[derive(Debug)]
struct Open {
    connection: Connection,
    keeper: Option<Keeper>,
}

impl Open {
    fn keep(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.keep(&mut self.connection);
        }
    }
}

impl Deref for StateStore {
    type Target = StateReader;

    fn deref(&self) -> &StateReader {
        &self.reader
    }
}

impl StateReader {
    /// `None` where the home has no database yet. One of the older tool is read in place, as if it were ours.
    pub fn open(home: &HomeLayout) -> Result<Option<Self>, StoreError> {
        let path = home.database();
        Ok(connect(&path)?.map(|connection| Self::over(path, connection)))
    }

    /// A reader over a connection that has been looked at.
    pub(crate) fn over(path: PathBuf, connection: Connection) -> Self {
        Self { path, open: Mutex::new(Open { connection, keeper: None }) }
    }

    pub(crate) fn read<T>(&self, work: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut open = self.lock();
        open.keep();
        let outcome = work(&open.connection).map_err(|fault| StoreError::from_fault(&self.path, fault));
        // Somebody migrates the older tool's database while it is read: the tables are others now.
        if outcome.is_err()
            && is_covered(&open.connection)
            && let Some(fresh) = connect(&self.path)?
        {
            open.connection = fresh;
            return work(&open.connection).map_err(|fault| StoreError::from_fault(&self.path, fault));
        }
        outcome
    }

    pub(crate) fn damaged(&self, detail: String) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), detail }
    }

    /// A panic elsewhere cannot leave a half transaction behind (it rolls back), so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore {
    /// Opens the database of a home and creates it, with the home's `state` folder, where there is none.
    /// A database that is damaged, newer, or not ours is refused and left as it is; one of the older tool has to be
    /// migrated first.
    pub fn open(home: &HomeLayout) -> Result<Self, StoreError> {
        let path = home.database();
        // Only a look that changes nothing decides whether the file may be opened for writing at all.
        let exists = match look(&path)? {
            Some((_, shape)) => refuse_unless_ours(&path, shape).map(|()| true)?,
            None => false,
        };
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
        let keeper = Some(Keeper::new(&path));
        Ok(Self { reader: StateReader { path, open: Mutex::new(Open { connection, keeper }) } })
    }

    /// How the state is kept now: looks whether the file has been deleted or replaced, and mends that where it can.
    /// Every read and write does the same first.
    pub fn condition(&self) -> StoreCondition {
        let must_try = self.lock().keeper.as_ref().is_some_and(Keeper::must_try);
        if must_try {
            // Its outcome is remembered.
            let _ = self.write(|transaction| {
                Ok(transaction.execute("UPDATE schema_info SET version = version", [])?)
            });
        }
        let mut open = self.lock();
        open.keep();
        open.keeper.as_mut().map_or(StoreCondition::Sound, Keeper::tell)
    }

    /// Runs `work` as one transaction that holds the write lock from its first read on, so that nothing can
    /// change between a read and the write that depends on it.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut open = self.lock();
        open.keep();
        let outcome = (|| {
            let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        let outcome = outcome.map_err(|fault| StoreError::from_fault(&self.path, fault));
        if let Some(keeper) = &mut open.keeper {
            keeper.wrote(&outcome);
        }
        outcome
    }
}

/// A read-only connection that answers as if the database were ours, which it is, or the older tool's.
fn connect(path: &Path) -> Result<Option<Connection>, StoreError> {
    let Some((connection, shape)) = look(path)? else { return Ok(None) };
    match shape {
        Shape::Older(tables) => {
            tables.cover(&connection, "").map_err(|error| StoreError::from_sqlite(path, error))?;
        }
        shape => refuse_unless_ours(path, shape)?,
    }
    Ok(Some(connection))
}

/// Whether views stand between the reader and the tables.
fn is_covered(connection: &Connection) -> bool {
    let views = "SELECT count(*) FROM temp.sqlite_schema";
    connection.query_row(views, [], |row| row.get(0)).is_ok_and(|count: i64| count > 0)
}

/// A read-only connection to the database, if there is one, and what it turned out to be.
pub(crate) fn look(path: &Path) -> Result<Option<(Connection, Shape)>, StoreError> {
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io(path, error)),
    }
    let opened =
        open_for_reading(path).and_then(|connection| Ok((schema::inspect(&connection)?, connection)));
    match opened {
        Ok((Shape::Empty, _)) => Ok(None),
        Ok((shape, connection)) => Ok(Some((connection, shape))),
        Err(error) if is_interrupted_creation(&error) => Ok(None),
        Err(error) => Err(StoreError::from_sqlite(path, error)),
    }
}

pub(crate) fn refuse_unless_ours(path: &Path, shape: Shape) -> Result<(), StoreError> {
    let path = path.to_owned();
    match shape {
        Shape::Ours => Ok(()),
        Shape::Newer(found) => Err(StoreError::TooNew { path, found }),
        Shape::Older(_) => Err(StoreError::OlderTool { path }),
        Shape::NewerOlder(found) => Err(StoreError::OlderToolTooNew { path, found }),
        Shape::Foreign => Err(StoreError::Foreign { path }),
        Shape::Incomplete(detail) => Err(StoreError::Corrupt { path, detail }),
        Shape::Empty => Err(StoreError::Corrupt { path, detail: "it has no tables".to_owned() }),
    }
}

pub(crate) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    // Views over the older tool's tables are the reader's own: no file is made for them anywhere.
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    // The last reader to leave must not move a killed writer's log into the database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// A rollback journal exists only while an empty file becomes a database (from then on it is a write-ahead
/// log): its writer is at work or was killed, and the next writer mends it.
fn is_interrupted_creation(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|inner| inner.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

pub(crate) fn open_for_writing(path: &Path) -> rusqlite::Result<Connection> {
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
    check(connection, path, "PRAGMA quick_check(1)")
}

/// Every page, and every index against its table.
pub(crate) fn check_integrity(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    check(connection, path, "PRAGMA integrity_check(1)")
}

fn check(connection: &Connection, path: &Path, pragma: &str) -> Result<(), StoreError> {
    let finding: String = connection
        .query_row(pragma, [], |row| row.get(0))
        .map_err(|error| StoreError::from_sqlite(path, error))?;
    if finding == "ok" { Ok(()) } else { Err(StoreError::Corrupt { path: path.to_owned(), detail: finding }) }
}

/// Another process may create the tables at the same time: whoever comes second finds them. What a journal of a
/// killed writer brings back may be anything.
fn create_tables(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let created = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let shape = match schema::inspect(&transaction)? {
            Shape::Empty => {
                schema::create(&transaction)?;
                Shape::Ours
            }
            found => found,
        };
        transaction.commit()?;
        Ok(shape)
    })();
    refuse_unless_ours(path, created.map_err(|error| StoreError::from_sqlite(path, error))?)
}

/// The folder and the file exist with their modes before SQLite sees them; it gives its side files the same.
pub(crate) fn prepare_file(folder: &Path, path: &Path) -> Result<(), StoreError> {
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
