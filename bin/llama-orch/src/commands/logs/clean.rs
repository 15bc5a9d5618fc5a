//! `logs clean`: files that are old enough go; what a running engine or the daemon writes to stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use instance_config::{Catalog, LoadedInstance};
use orch_core::{ByteCount, Failure, HomeLayout, InstanceName, ReplicaId};
use serde_json::json;

use super::{log_files, unreadable};
use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, names: &[String], older_than: Duration) -> CommandResult {
    let catalog = context.catalog()?;
    let mut chosen: Vec<&LoadedInstance> = Vec::new();
    for name in names {
        chosen.push(catalog.select(name)?);
    }
    if names.is_empty() {
        chosen.extend(&catalog.instances);
    }
    let in_use = files_in_use(context, &catalog)?;
    let mut removed: Vec<(PathBuf, ByteCount)> = Vec::new();
    for instance in chosen {
        let files = log_files(context, instance, ReplicaId::FIRST)?;
        for live in [&files.stdout, &files.stderr] {
            let old = old_files(live, in_use.contains(live), older_than);
            remove(old, &mut removed).map_err(|error| unreadable(&files, &error))?;
        }
    }
    if names.is_empty() {
        let home = context.home()?;
        let left = left_behind(home, &catalog, older_than).into_iter();
        let left = left.chain(old_files(&home.daemon_log(), true, older_than)).collect();
        remove(left, &mut removed).map_err(|error| {
            Failure::new(
                orch_core::ExitCode::General,
                format!("cannot clean {}: {error}", home.logs().display()),
            )
        })?;
    }
    let freed = ByteCount(removed.iter().map(|(_, size)| size.0).sum());
    if context.printer.json() {
        let paths: Vec<&PathBuf> = removed.iter().map(|(path, _)| path).collect();
        return Ok(context.printer.document(&json!({"removed": paths, "freed_bytes": freed}))?);
    }
    Ok(context.printer.line(format_args!("{} files removed, {freed} freed", removed.len()))?)
}

fn remove(paths: Vec<PathBuf>, removed: &mut Vec<(PathBuf, ByteCount)>) -> io::Result<()> {
    for path in paths {
        let size = fs::metadata(&path).map_or(0, |file| file.len());
        match fs::remove_file(&path) {
            Ok(()) if !removed.iter().any(|(known, _)| *known == path) => {
                removed.push((path, ByteCount(size)));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The live files of all instances that run: several may share one, whatever the names say.
fn files_in_use(context: &Context, catalog: &Catalog) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for instance in &catalog.instances {
        if context.look(|viewer| viewer.instance(instance))?.pid.is_some() {
            let of_instance = log_files(context, instance, ReplicaId::FIRST)?;
            files.extend([of_instance.stdout, of_instance.stderr]);
        }
    }
    Ok(files)
}

/// Logs of instances that are gone.
fn left_behind(home: &HomeLayout, catalog: &Catalog, older_than: Duration) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in fs::read_dir(home.logs()).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let is_known = catalog.instances.iter().any(|known| known.config.name.as_str() == name)
            || catalog.broken.iter().any(|broken| broken.name == name);
        let Ok(name) = InstanceName::new(&name) else { continue };
        // An engine whose config went away still writes there.
        let lives = engine_process::running_engine(&home.engine_lock(&name, ReplicaId::FIRST)).is_some();
        if is_known || lives {
            continue;
        }
        for stream in ["stdout.log", "stderr.log"] {
            files.extend(old_files(&folder.path().join(stream), false, older_than));
        }
    }
    files
}

/// Log files of one stream, of all replicas and with their indexes, that were last written so long ago. What an engine
/// has open is left to it.
fn old_files(live: &Path, is_in_use: bool, older_than: Duration) -> Vec<PathBuf> {
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
        assert_eq!(old_files(&live, true, Duration::ZERO), [folder.path().join("stderr.log.1")]);
        assert_eq!(old_files(&live, false, Duration::ZERO).len(), 3);
        assert!(old_files(&live, false, Duration::from_hours(1)).is_empty());
    }
}
