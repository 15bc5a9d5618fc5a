//! How an engine ended: written by its shim, read by whoever wants to know later.

use std::path::Path;
use std::time::Duration;

use orch_core::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::private_files::{read_bounded, write_private};
use crate::wait::wait_until;

const SIZE_LIMIT: u64 = 64 * 1024;

/// How one engine process ended. With neither code nor signal the end was seen by a shim that had adopted the
/// engine: only a parent is told the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub at: UnixMillis,
    /// The kernel killed it for want of memory, or its last words say that a device had too little.
    pub out_of_memory: bool,
    /// The last lines on stderr, oldest first.
    pub last_stderr: Vec<String>,
}

impl ExitRecord {
    /// Reads a record; `None` when there is none or it is not readable as one.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&read_bounded(path, SIZE_LIMIT).ok()?).ok()
    }

    /// The record of this very process. It is written a moment after the process has ended, so this waits for
    /// it, at most `limit`; `None` when the shim did not live to write it.
    pub fn await_for(path: &Path, pid: u32, limit: Duration) -> Option<Self> {
        let mut found = None;
        wait_until(limit, || {
            found = Self::read(path).filter(|record| record.pid == pid);
            found.is_some()
        });
        found
    }

    /// The code as a shell shows it: a signal as 128 more than its number.
    pub fn shell_code(&self) -> Option<i32> {
        self.code.or(self.signal.map(|signal| 128 + signal))
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(code: Option<i32>, signal: Option<i32>) -> ExitRecord {
        let last_stderr = vec!["bye".to_owned()];
        ExitRecord { pid: 42, code, signal, at: UnixMillis(1), out_of_memory: false, last_stderr }
    }

    #[test]
    fn a_record_survives_the_disk_and_belongs_to_one_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/chat/exit.json");
        assert_eq!(ExitRecord::read(&path), None);
        record(Some(3), None).write(&path).unwrap();
        assert_eq!(ExitRecord::read(&path), Some(record(Some(3), None)));
        assert!(ExitRecord::await_for(&path, 42, Duration::ZERO).is_some());
        assert_eq!(ExitRecord::await_for(&path, 43, Duration::ZERO), None);
    }

    #[test]
    fn a_signal_shows_as_in_a_shell() {
        assert_eq!(record(None, Some(9)).shell_code(), Some(137));
        assert_eq!(record(Some(1), None).shell_code(), Some(1));
        assert_eq!(record(None, None).shell_code(), None);
    }

    #[test]
    fn an_oversized_or_torn_record_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit.json");
        std::fs::write(&path, "{\"pid\":1").unwrap();
        assert_eq!(ExitRecord::read(&path), None);
        std::fs::write(&path, " ".repeat(SIZE_LIMIT as usize + 1)).unwrap();
        assert_eq!(ExitRecord::read(&path), None);
    }
}
