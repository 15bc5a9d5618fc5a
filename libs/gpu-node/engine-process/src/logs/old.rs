//! Log files that have become old.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files of one log, of all replicas and with their indexes, that were last written at least so long ago. What is in
/// use is left to whoever writes it; what was rotated is in nobody's use.
pub fn old_logs(live: &Path, is_in_use: bool, older_than: Duration) -> Vec<PathBuf> {
    let Some(folder) = live.parent() else { return Vec::new() };
    let is_old = |path: &Path| {
        let written = fs::metadata(path).and_then(|file| file.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= older_than)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| match part_of(live, path) {
            Some(Part::Live) => !is_in_use,
            Some(Part::Rotated) => true,
            None => false,
        })
        .filter(|path| is_old(path))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Live,
    Rotated,
}

/// What a file is to a log: `stderr.log`, `stderr.r2.log.index` live, `stderr.log.1`, `stderr.r2.log.3.index` rotated.
fn part_of(live: &Path, file: &Path) -> Option<Part> {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let (stem, name) = (text(live.file_stem())?, text(file.file_name())?);
    let rest = without_replica(name.strip_prefix(&stem)?);
    let extension = text(live.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    if is_moment(rest.strip_suffix(&extension).unwrap_or_default()) {
        return Some(Part::Rotated);
    }
    let rest = rest.strip_prefix(&extension)?;
    match rest {
        "" | ".index" => Some(Part::Live),
        rest => is_rotated(rest).then_some(Part::Rotated),
    }
}

/// `.20251021_101500`: how the older tool named what it had rotated, before the extension.
fn is_moment(suffix: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = suffix.strip_prefix('.').and_then(|moment| moment.split_once('_'));
    parts.is_some_and(|(day, time)| digits(day, 8) && digits(time, 6))
}

/// `.r2.log` without the number of the replica.
fn without_replica(rest: &str) -> &str {
    let Some(after) = rest.strip_prefix(".r") else { return rest };
    let tail = after.trim_start_matches(|character: char| character.is_ascii_digit());
    if tail.len() < after.len() { tail } else { rest }
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
    fn only_files_of_the_log_are_taken_for_it() {
        let live = Path::new("/h/logs/chat/stderr.log");
        for (file, part) in [
            ("stderr.log", Some(Part::Live)),
            ("stderr.log.index", Some(Part::Live)),
            ("stderr.r2.log", Some(Part::Live)),
            ("stderr.r12.log.index", Some(Part::Live)),
            ("stderr.log.1", Some(Part::Rotated)),
            ("stderr.log.12", Some(Part::Rotated)),
            ("stderr.log.3.index", Some(Part::Rotated)),
            ("stderr.r2.log.1", Some(Part::Rotated)),
            ("stderr.20251021_101500.log", Some(Part::Rotated)),
            ("stderr.2025_101500.log", None),
            ("stdout.20251021_101500.log", None),
            ("stderr..log", None),
            ("stdout.log", None),
            ("stderr.txt", None),
            ("stderr.log.1.txt", None),
            ("stderr.log.", None),
            ("stderr.log1", None),
            ("stderr.rx.log", None),
            ("stderr.log.rotating.1", None),
            ("my-stderr.log", None),
        ] {
            assert_eq!(part_of(live, &Path::new("/h/logs/chat").join(file)), part, "{file}");
        }
        let bare = Path::new("/h/out");
        assert_eq!(part_of(bare, Path::new("/h/out.2")), Some(Part::Rotated));
        assert_eq!(part_of(bare, Path::new("/h/out.r1")), Some(Part::Live));
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
