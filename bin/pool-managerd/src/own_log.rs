//! The daemon's own log: written to through its error output, rotated by size while it runs.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use orch_core::ByteCount;

/// A log above this is rotated.
const LIMIT: ByteCount = ByteCount::from_mib(10);
/// `daemon.log.1` … are kept up to this number.
const KEPT: u32 = 3;

/// Rotates the log of this process if it has grown large. Nothing that this process writes is lost: its error output is
/// held meanwhile. A log that cannot be rotated goes on growing until the next look.
pub(crate) fn keep_small(log: &Path) {
    // Whoever waits for this lock was about to write to the log.
    let _held = io::stderr().lock();
    let is_large = fs::metadata(log).is_ok_and(|file| file.len() >= LIMIT.0);
    if is_large && is_own(log) {
        let _ = rotate(log);
    }
}

/// Whether this process writes there. One in the foreground, or of a service manager, writes elsewhere.
#[cfg(unix)]
fn is_own(log: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let open = io::stderr().as_fd().try_clone_to_owned().map(fs::File::from).and_then(|file| file.metadata());
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    open.map(id).is_ok_and(|open| fs::metadata(log).map(id).is_ok_and(|there| there == open))
}

/// Files have no identity to compare there; a terminal is no file.
#[cfg(not(unix))]
fn is_own(_log: &Path) -> bool {
    use std::io::IsTerminal;
    !io::stderr().is_terminal()
}

/// Copies the log aside and empties it: it stays the file that its writers have open. Earlier logs move on only when
/// the copy is whole: on a full disk this is tried again and again.
fn rotate(log: &Path) -> io::Result<()> {
    let part = numbered(log, 0);
    if let Err(error) = fs::copy(log, &part) {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    for number in (1..KEPT).rev() {
        let _ = fs::rename(numbered(log, number), numbered(log, number + 1));
    }
    fs::rename(&part, numbered(log, 1))?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

fn numbered(log: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_rotated_log_goes_on_and_the_last_three_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("daemon.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        for round in 0..5 {
            writeln!(writer, "round {round}").unwrap();
            rotate(&log).unwrap();
        }
        writeln!(writer, "now").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "now\n");
        for (number, round) in [(1, 4), (2, 3), (3, 2)] {
            assert_eq!(fs::read_to_string(numbered(&log, number)).unwrap(), format!("round {round}\n"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_log_that_cannot_be_copied_costs_no_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("daemon.log");
        fs::write(&log, "now").unwrap();
        fs::write(numbered(&log, 1), "before").unwrap();
        fs::create_dir(numbered(&log, 0)).unwrap();
        for _ in 0..KEPT {
            rotate(&log).unwrap_err();
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "now");
        assert_eq!(fs::read_to_string(numbered(&log, 1)).unwrap(), "before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("daemon.log");
        fs::File::create(&log).unwrap().set_len(LIMIT.0 + 1).unwrap();
        keep_small(&log);
        keep_small(&folder.path().join("nowhere.log"));
        assert_eq!(fs::metadata(&log).unwrap().len(), LIMIT.0 + 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
