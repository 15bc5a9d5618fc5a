//! One writer of output files at a time, among threads and among processes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{FileError, Folder, For, Obstacle, failed};

/// Never removed: whoever removed it would let two writers in, each with a lock on a file of its own.
const NAME: &str = "lock";

/// Longer than any write of files of the allowed size.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_micros(500);

/// The lock on one run's outputs.
pub(crate) struct PublishLock {
    /// Threads of one process queue here; only one of them asks the system.
    file: Mutex<File>,
    /// What it guards.
    folder: PathBuf,
}

/// Held while files are published.
pub(crate) struct Held<'a> {
    file: MutexGuard<'a, File>,
}

impl PublishLock {
    /// `staging` is where the lock file lies.
    pub(crate) fn open(staging: &Folder, folder: PathBuf) -> io::Result<Self> {
        let file = match open_or_create(staging)? {
            Some(file) => file,
            // Another process has created it between our two looks.
            None => open_or_create(staging)?.ok_or(io::ErrorKind::NotFound)?,
        };
        Ok(Self { file: Mutex::new(file), folder })
    }

    pub(crate) fn hold(&self) -> Result<Held<'_>, FileError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Held { file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::park_timeout(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(FileError::Busy { folder: self.folder.clone(), seconds: LIMIT.as_secs() });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(failed(self.folder.display().to_string(), source));
                }
            }
        }
    }
}

fn open_or_create(staging: &Folder) -> io::Result<Option<File>> {
    let there = staging.file(NAME).map_err(|obstacle| match obstacle {
        Obstacle::Failed(error) => error,
        Obstacle::Link | Obstacle::NoFolder | Obstacle::NoFile => {
            io::Error::other(format!("{NAME} is no regular file"))
        }
    })?;
    match there {
        Some(file) => Ok(Some(file)),
        None => match staging.create(NAME, For::Owner) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            other => other.map(Some),
        },
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Closing the file would release it too; until then others would wait for nothing.
        let _released_at_the_latest_on_close = self.file.unlock();
    }
}
