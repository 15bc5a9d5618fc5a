//! One writer of the engines folder at a time, whatever process it is in.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use orch_core::{ExitCode, Failure};

use crate::faults;

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Held until dropped; the system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits for the lock, at most ten seconds: it is never held across a download.
pub(crate) fn acquire(path: &Path) -> Result<Lock, Failure> {
    let file = open(path)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::park_timeout(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process holds {}", path.display());
                return Err(Failure::new(ExitCode::LockNotAcquired, message));
            }
            Err(TryLockError::Error(error)) => return Err(faults::install("lock", path, &error)),
        }
    }
}

/// The lock if nobody holds it.
pub(crate) fn try_acquire(path: &Path) -> Option<Lock> {
    let file = open(path).ok()?;
    file.try_lock().ok().map(|()| Lock { _file: file })
}

fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| faults::install("open", path, &error))
}
