//! One process at a time runs a job: a lock of the operating system on a file that is never unlinked. It ends with
//! its holder, however it ends. The text inside only tells people who that is.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use orch_core::UnixMillis;
use serde::{Deserialize, Serialize};

use super::private;

/// Whoever only looks holds the lock for a moment: that long it may be in the way.
const LOOKS_LAST: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_TEXT: u64 = 16 * 1024;

/// Who holds a lock, as written inside its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// When the lock was taken, RFC 3339.
    pub since: String,
    /// What the holder does, such as `llama-orch run`.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}, since {})", self.pid, self.command, self.since)
    }
}

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: whoever comes next has not written its own text yet.
        let _ = self.file.set_len(0);
    }
}

impl Lock {
    /// `Ok(None)` where somebody has it.
    pub(super) fn take(path: &Path, command: &str) -> io::Result<Option<Self>> {
        let file = private::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let end = Instant::now() + LOOKS_LAST;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                // Nobody wakes us: it is the pause that is wanted.
                Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::park_timeout(PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
        }
        let mut lock = Self { file };
        lock.describe(command);
        Ok(Some(lock))
    }

    /// A full disk does not weaken the lock: it then names nobody.
    fn describe(&mut self, command: &str) {
        let holder = Holder {
            pid: std::process::id(),
            since: UnixMillis::now().to_rfc3339(),
            command: command.to_owned(),
        };
        let Ok(mut text) = serde_json::to_vec(&holder) else { return };
        text.push(b'\n');
        let file = &mut self.file;
        if file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).is_err() {
            let _ = file.set_len(0);
        }
    }
}

/// Whether somebody holds the lock this moment. Creates and changes nothing.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// What the text says; `None` where it says nothing, or cannot be read while the lock is held.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(LONGEST_TEXT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
