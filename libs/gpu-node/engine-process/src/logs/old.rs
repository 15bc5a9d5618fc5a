//! Rotated log files that have become old.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The rotated files of one log, with their indexes, that were last written at least so long ago.
pub fn rotated_logs(live: &Path, older_than: Duration) -> Vec<PathBuf> {
    let Some((folder, name)) = live.parent().zip(live.file_name().map(|name| name.to_string_lossy())) else {
        return Vec::new();
    };
    let is_old = |path: &Path| {
        let written = fs::metadata(path).and_then(|file| file.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= older_than)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().strip_prefix(&*name).is_some_and(is_rotated))
        .map(|entry| entry.path())
        .filter(|path| is_old(path))
        .collect()
}

/// `.3` or `.3.index`.
fn is_rotated(suffix: &str) -> bool {
    let number = suffix.strip_suffix(".index").unwrap_or(suffix);
    let digits = number.strip_prefix('.').unwrap_or("");
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rotated_files_are_taken_for_rotated_files() {
        for rotated in [".1", ".12", ".3.index"] {
            assert!(is_rotated(rotated), "{rotated}");
        }
        for other in ["", ".index", ".txt", ".1.txt", ".", "1"] {
            assert!(!is_rotated(other), "{other}");
        }
    }

    #[test]
    fn what_is_young_live_or_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("stderr.log");
        for name in ["stderr.log", "stderr.log.index", "stderr.log.1", "stdout.log.1", "stderr.log.old"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(rotated_logs(&live, Duration::ZERO), [folder.path().join("stderr.log.1")]);
        assert!(rotated_logs(&live, Duration::from_hours(1)).is_empty());
    }
}
