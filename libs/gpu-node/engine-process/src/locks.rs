//! Locks of the operating system on files. They end with their last holder, however it ends, so nothing has to be
//! cleaned up and the files are never unlinked. The text inside only tells people who holds it.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::{ExitCode, Failure, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::identity::{ProcessIdentity, Sight, StartMark, asked_port, start_mark};
use crate::private_files;
use crate::spec::EngineHandle;
use crate::sys;
use crate::wait::wait_until;

const TEXT_LIMIT: u64 = 16 * 1024;

/// Who holds a lock, as written inside its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    pub pid: u32,
    /// What the holder does, such as `up chat`.
    pub operation: String,
    /// When the lock was taken, RFC 3339.
    pub started_at: String,
    /// The holder's own start mark, so that its pid cannot be mistaken.
    pub start_mark: Option<StartMark>,
    /// In an engine's lock: the engine that lives under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Box<ProcessIdentity>>,
}

impl LockHolder {
    /// This process, now.
    pub(crate) fn myself(operation: &str) -> Self {
        let pid = std::process::id();
        Self {
            pid,
            operation: operation.to_owned(),
            started_at: UnixMillis::now().to_rfc3339(),
            start_mark: start_mark(pid),
            engine: None,
        }
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is locked{}", path.display(), describe(holder.as_ref()))]
    Held { path: PathBuf, holder: Option<LockHolder> },
    #[error("cannot lock {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn describe(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
}

const UNKNOWN: &str = " by a process that has not said who it is";

/// What follows the word `locked` or `held`.
impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str(UNKNOWN),
            pid => write!(f, " by pid {pid} ({}, since {})", self.operation, self.started_at),
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { .. } => Failure::new(ExitCode::LockNotAcquired, error.to_string())
                .hint("wait for the other command, or end it with --force-unlock"),
            LockError::Io { source, .. } => {
                let denied = source.kind() == io::ErrorKind::PermissionDenied;
                let exit = if denied { ExitCode::PermissionDenied } else { ExitCode::LockNotAcquired };
                Failure::new(exit, format!("{error}: {source}"))
            }
        }
    }
}

/// A held lock. Dropping it releases; so does the end of the process.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
    /// The text speaks of this very holder, and goes with it. One that others inherit outlives us.
    clears_text: bool,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.clears_text {
            // Still locked: whoever waits cannot have written its own text yet. A text that stays names a holder of
            // the past, whom readers look for in vain.
            let _ = self.file.set_len(0);
        }
    }
}

impl LockGuard {
    /// Takes the lock if it is free this moment. `Ok(None)` means somebody has it.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        private_files::create_parent(path)?;
        Ok(sys::try_lock(path)?.map(|file| Self { file, clears_text: false }))
    }

    /// Replaces the text inside. A full disk does not weaken the lock, so this cannot fail; it leaves no text
    /// then, rather than an old one that speaks of somebody else.
    pub(crate) fn describe(&self, holder: &LockHolder) {
        write_text(&self.file, holder);
    }

    /// The same for a lock that another process holds on our behalf.
    pub(crate) fn describe_held(path: &Path, holder: &LockHolder) {
        if let Ok(file) = File::options().write(true).open(path) {
            write_text(&file, holder);
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

fn write_text(mut file: &File, holder: &LockHolder) {
    let Ok(mut text) = serde_json::to_vec(holder) else { return };
    text.push(b'\n');
    if file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).is_err() {
        let _ = file.set_len(0);
    }
}

/// Takes a lock, waiting at most `wait`, and writes into the file who holds it. The file is created where
/// missing and never removed.
pub fn acquire(path: &Path, operation: &str, wait: Duration) -> Result<LockGuard, LockError> {
    let mut outcome = Ok(None);
    wait_until(wait, || {
        outcome = LockGuard::try_acquire(path);
        !matches!(outcome, Ok(None))
    });
    match outcome {
        Ok(Some(mut guard)) => {
            guard.describe(&LockHolder::myself(operation));
            guard.clears_text = true;
            Ok(guard)
        }
        Ok(None) => Err(LockError::Held { path: path.to_owned(), holder: living_holder(path) }),
        Err(source) => Err(LockError::Io { path: path.to_owned(), source }),
    }
}

/// What the text says, unless it speaks of somebody who is gone: a killed holder leaves its text behind, and the next
/// one needs a moment to write its own.
fn living_holder(path: &Path) -> Option<LockHolder> {
    read_text(path).filter(|holder| match &holder.start_mark {
        Some(mark) => start_mark(holder.pid).as_ref() == Some(mark),
        None => start_mark(holder.pid).is_some(),
    })
}

/// Who holds the lock now; `None` when nobody does. Creates and changes nothing.
pub fn holder(path: &Path) -> Option<LockHolder> {
    if !is_held(path) {
        return None;
    }
    // The text may be missing (disk full) or half-written; the lock is held all the same.
    let unknown = || LockHolder {
        pid: 0,
        operation: "unknown".to_owned(),
        started_at: String::new(),
        start_mark: None,
        engine: None,
    };
    Some(living_holder(path).unwrap_or_else(unknown))
}

/// Whether somebody has the lock this moment.
pub(crate) fn is_held(path: &Path) -> bool {
    sys::is_locked(path)
}

pub(crate) fn read_text(path: &Path) -> Option<LockHolder> {
    serde_json::from_slice(&private_files::read_bounded(path, TEXT_LIMIT).ok()?).ok()
}

/// The engine that lives under an engine lock, known from the moment it was started: before it is ready, and
/// even if whoever started it died before writing anything down.
pub fn running_engine(engine_lock: &Path) -> Option<EngineHandle> {
    if !is_held(engine_lock) {
        return None;
    }
    // The text names the shim, which the engine may have outlived.
    let holder = read_text(engine_lock);
    let shim_pid = holder.as_ref().map_or(0, |holder| holder.pid);
    let written = holder.and_then(|holder| holder.engine).map(|identity| *identity);
    let identity = written.or_else(|| engine_by_descriptor(engine_lock))?;
    Some(EngineHandle { identity, shim_pid })
}

/// Without a text (a shim killed in its first millisecond, a full disk) the lock itself still leads to the
/// engine: it leads the process group in which the lock's descriptor was inherited.
fn engine_by_descriptor(engine_lock: &Path) -> Option<ProcessIdentity> {
    let sharers = sys::lock_sharers(engine_lock);
    sharers.iter().filter(|entry| entry.group == entry.pid).find_map(|entry| {
        let Sight::Seen(process) = sys::sight(entry.pid) else { return None };
        let port = asked_port(&process.args)?;
        Some(ProcessIdentity {
            pid: entry.pid,
            started_at: process.started_at,
            executable: process.executable?,
            port,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_and_a_released_one_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/locks/chat.lock");
        assert_eq!(holder(&path), None);
        assert!(!path.exists(), "looking must not create the file");

        let guard = acquire(&path, "up chat", Duration::ZERO).unwrap();
        let seen = holder(&path).unwrap();
        assert_eq!((seen.pid, seen.operation.as_str()), (std::process::id(), "up chat"));
        let error = acquire(&path, "down chat", Duration::from_millis(20)).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.exit, ExitCode::LockNotAcquired);
        assert!(failure.message.contains(&format!("pid {} (up chat", std::process::id())), "{failure}");

        drop(guard);
        assert_eq!(holder(&path), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"", "it names nobody any more");
        assert!(path.exists(), "lock files are never unlinked");
        acquire(&path, "down chat", Duration::ZERO).unwrap();
    }

    #[test]
    fn a_lock_with_unreadable_text_is_held_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let guard = LockGuard::try_acquire(&path).unwrap().unwrap();
        (&guard.file).write_all(b"{half").unwrap();
        assert_eq!(holder(&path).unwrap().operation, "unknown");
    }

    #[test]
    fn a_holder_that_was_killed_is_not_named_for_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let guard = LockGuard::try_acquire(&path).unwrap().unwrap();
        let dead = LockHolder { pid: u32::MAX / 2, ..LockHolder::myself("up of the past") };
        guard.describe(&dead);
        assert_eq!(holder(&path).unwrap().to_string(), " by a process that has not said who it is");
        let error = acquire(&path, "down", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("has not said who it is") && !error.contains("past"), "{error}");
    }

    #[test]
    fn waiting_ends_as_soon_as_the_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let guard = acquire(&path, "first", Duration::ZERO).unwrap();
        let second = std::thread::spawn({
            let path = path.clone();
            move || acquire(&path, "second", Duration::from_secs(20)).is_ok()
        });
        drop(guard);
        assert!(second.join().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn lock_files_belong_to_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/x.lock");
        let _guard = acquire(&path, "up", Duration::ZERO).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
