//! Log files of engines, read: the last lines, and what follows. Written they are by the engine itself, and kept
//! in bounds by its shim.

mod follow;
pub(crate) mod index;
mod old;
mod position;
mod reverse;
mod size;
mod tail;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use orch_core::{ReplicaId, UnixMillis};

pub use follow::{Follower, tail_then_follow};
pub use old::old_logs;
pub use position::{LogPosition, NoPosition};
pub use size::{LARGE_LOGS, total_size};
pub use tail::tail;

/// The two live log files of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Which streams a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamSelection {
    Stdout,
    Stderr,
    #[default]
    Both,
}

/// One line, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub stream: Stream,
    /// When the line was seen in the file: at most 100 ms (200 ms after a silence) after it was written.
    /// `None` where no shim kept an index.
    pub at: Option<UnixMillis>,
    pub text: String,
}

/// Longer lines are shown in pieces: a file without line ends must not fill the memory.
pub(crate) const LINE_LIMIT: usize = 64 * 1024;

impl LogFiles {
    /// The chosen streams; a file that serves as both is read once.
    pub(crate) fn chosen(&self, selection: StreamSelection) -> Vec<(Stream, &Path)> {
        let stdout = (Stream::Stdout, self.stdout.as_path());
        let stderr = (Stream::Stderr, self.stderr.as_path());
        match selection {
            StreamSelection::Stdout => vec![stdout],
            StreamSelection::Stderr => vec![stderr],
            StreamSelection::Both if self.stdout == self.stderr => vec![stderr],
            StreamSelection::Both => vec![stdout, stderr],
        }
    }
}

/// A replica's own log file beside the configured one: `.rN` before the extension, nothing for the first.
pub fn replica_log_path(path: &Path, replica: ReplicaId) -> PathBuf {
    if replica == ReplicaId::FIRST {
        return path.to_owned();
    }
    let mut name = path.file_stem().map(OsString::from).unwrap_or_default();
    name.push(format!(".{replica}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The `number`th rotated file: `stderr.log.1` is the youngest.
pub(crate) fn rotated_path(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}"))
}

/// The file that tells when a log file grew.
pub(crate) fn index_path(path: &Path) -> PathBuf {
    with_suffix(path, ".index")
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a file's first line, line end included, only stands in the place of one that a rotation took away.
fn is_blanked_out(line: &[u8]) -> bool {
    line.len() > 1 && line.iter().all(u8::is_ascii_whitespace)
}

pub(crate) fn line_text(bytes: &[u8]) -> String {
    let mut end = bytes.len();
    while end > 0 && matches!(bytes[end - 1], b'\n' | b'\r') {
        end -= 1;
    }
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_after_the_first_have_their_number_before_the_extension() {
        let path = Path::new("/h/logs/chat/stdout.log");
        assert_eq!(replica_log_path(path, ReplicaId::FIRST), path);
        assert_eq!(replica_log_path(path, ReplicaId(2)), Path::new("/h/logs/chat/stdout.r2.log"));
        assert_eq!(replica_log_path(Path::new("/h/out"), ReplicaId(1)), Path::new("/h/out.r1"));
    }
}
