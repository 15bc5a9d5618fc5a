//! Log files that have become old.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Log files of one stream, with their indexes, that were last written so long ago. An engine that runs keeps its live
/// file open: that one is left to it.
pub fn old_logs(live: &Path, is_running: bool, older_than: Duration) -> Vec<PathBuf> {
    let Some((folder, name)) = live.parent().zip(live.file_name().map(|name| name.to_string_lossy())) else {
        return Vec::new();
    };
    let is_old = |path: &Path| {
        let written = fs::metadata(path).and_then(|file| file.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= older_than)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            match file.strip_prefix(&*name) {
                Some("" | ".index") => !is_running,
                Some(rest) => is_rotated(rest),
                None => is_of_older_tool(&file, &name),
            }
        })
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

/// `stdout.20251021_101500.log`: how the older tool named what it had rotated out of `stdout.log`.
fn is_of_older_tool(file: &str, live: &str) -> bool {
    let Some((stem, extension)) = live.rsplit_once('.') else { return false };
    let inside = file.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    let moment = inside.and_then(|rest| rest.strip_prefix('.')?.strip_suffix('.')).unwrap_or("");
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    moment.split_once('_').is_some_and(|(day, time)| digits(day, 8) && digits(time, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_of_the_older_tool_are_known_by_the_moment_in_their_name() {
        assert!(is_of_older_tool("stdout.20251021_101500.log", "stdout.log"));
        for other in
            ["stdout.2025_101500.log", "stderr.20251021_101500.log", "stdout.log", "stdout..log", "x"]
        {
            assert!(!is_of_older_tool(other, "stdout.log"), "{other}");
        }
    }

    #[test]
    fn only_log_files_are_taken_for_log_files() {
        for rotated in [".1", ".12", ".3.index"] {
            assert!(is_rotated(rotated), "{rotated}");
        }
        for other in ["", ".index", ".txt", ".1.txt", ".", "1"] {
            assert!(!is_rotated(other), "{other}");
        }
    }

    #[test]
    fn the_live_file_of_a_running_engine_stays() {
        let folder = tempfile::tempdir().unwrap();
        let live = folder.path().join("stderr.log");
        for name in ["stderr.log", "stderr.log.index", "stderr.log.1", "stdout.log", "stderr.log.old"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(old_logs(&live, true, Duration::ZERO), [folder.path().join("stderr.log.1")]);
        assert_eq!(old_logs(&live, false, Duration::ZERO).len(), 3);
        assert!(old_logs(&live, false, Duration::from_hours(1)).is_empty());
    }
}
