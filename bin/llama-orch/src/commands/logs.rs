//! `logs`: what engines say, and room made where they said too much.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine_process::{Follower, LogFiles, LogLine, Stream, StreamSelection};
use instance_config::LoadedInstance;
use orch_core::{ByteCount, ExitCode, Failure, ReplicaId, UnixMillis};
use serde_json::json;

use crate::arguments::{LogsAction, LogsArguments, StreamArgument};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::repeat;

/// Short enough that it reads as at once.
const FOLLOW_PACE: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context, arguments: &LogsArguments) -> CommandResult {
    if let Some(LogsAction::Clean { names, older_than }) = &arguments.action {
        return clean(context, names, *older_than);
    }
    let name = arguments.name.as_deref().unwrap_or_default();
    let catalog = context.catalog()?;
    let instance = catalog.select(name)?;
    let replica = arguments.replica.unwrap_or(ReplicaId::FIRST);
    let files = log_files(context, instance, replica)?;
    let selection = selection(arguments.stream);
    let since = arguments.since.map(|since| since.before(UnixMillis::now()));
    if !arguments.follow {
        let lines = engine_process::tail(&files, selection, arguments.tail, since);
        return show(context, None, &lines.map_err(|error| unreadable(&files, &error))?);
    }
    let (lines, mut follower) = engine_process::tail_then_follow(&files, selection, arguments.tail, since)
        .map_err(|error| unreadable(&files, &error))?;
    show(context, None, &lines)?;
    repeat(FOLLOW_PACE, || {
        let lines = follower.poll().map_err(|error| unreadable(&files, &error))?;
        show(context, None, &lines)?;
        Ok(false)
    })
}

/// Shows what several instances say from now on, each line with its instance's name, until Ctrl-C.
pub(super) fn follow_all(
    context: &Context,
    instances: &[LoadedInstance],
    stream: StreamArgument,
) -> CommandResult {
    let mut followers: Vec<(&str, LogFiles, Follower)> = Vec::new();
    for instance in instances {
        let files = log_files(context, instance, ReplicaId::FIRST)?;
        let follower =
            Follower::new(&files, selection(stream)).map_err(|error| unreadable(&files, &error))?;
        followers.push((instance.config.name.as_str(), files, follower));
    }
    repeat(FOLLOW_PACE, || {
        for (name, files, follower) in &mut followers {
            let lines = follower.poll().map_err(|error| unreadable(files, &error))?;
            show(context, Some(name), &lines)?;
        }
        Ok(false)
    })
}

fn log_files(context: &Context, instance: &LoadedInstance, replica: ReplicaId) -> Result<LogFiles, Failure> {
    let (home, config) = (context.home()?, &instance.config);
    Ok(LogFiles {
        stdout: instance_config::log_path(&config.logs.stdout, config, home, replica),
        stderr: instance_config::log_path(&config.logs.stderr, config, home, replica),
    })
}

fn selection(stream: StreamArgument) -> StreamSelection {
    match stream {
        StreamArgument::Stdout => StreamSelection::Stdout,
        StreamArgument::Stderr => StreamSelection::Stderr,
        StreamArgument::Both => StreamSelection::Both,
    }
}

fn unreadable(files: &LogFiles, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::General,
    };
    let folder = files.stderr.parent().unwrap_or(&files.stderr);
    Failure::new(exit, format!("cannot read the logs in {}: {error}", folder.display()))
}

fn show(context: &Context, name: Option<&str>, lines: &[LogLine]) -> CommandResult {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&shown(context, name, line));
        text.push('\n');
    }
    Ok(context.printer.text(&text)?)
}

fn shown(context: &Context, name: Option<&str>, line: &LogLine) -> String {
    if context.printer.json() {
        let stream = match line.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut record =
            json!({"ts": line.at.map(UnixMillis::to_rfc3339), "stream": stream, "text": line.text});
        if let Some(name) = name {
            record["instance"] = json!(name);
        }
        return record.to_string();
    }
    match name {
        Some(name) => format!("{name} | {}", line.text),
        None => line.text.clone(),
    }
}

/// `logs clean`: rotated files that are old enough go, and the live ones of instances that do not run.
fn clean(context: &Context, names: &[String], older_than: Duration) -> CommandResult {
    let catalog = context.catalog()?;
    let mut instances: Vec<&LoadedInstance> = Vec::new();
    for name in names {
        instances.push(catalog.select(name)?);
    }
    if names.is_empty() {
        instances.extend(&catalog.instances);
    }
    let mut removed = Vec::new();
    for instance in instances {
        let is_running = context.look(|viewer| viewer.instance(instance))?.pid.is_some();
        let files = log_files(context, instance, ReplicaId::FIRST)?;
        for live in [&files.stdout, &files.stderr] {
            for path in old_files(live, is_running, older_than) {
                let size = fs::metadata(&path).map_or(0, |file| file.len());
                match fs::remove_file(&path) {
                    Ok(()) => removed.push((path, ByteCount(size))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(unreadable(&files, &error).into()),
                }
            }
        }
    }
    let freed = ByteCount(removed.iter().map(|(_, size)| size.0).sum());
    if context.printer.json() {
        let paths: Vec<&PathBuf> = removed.iter().map(|(path, _)| path).collect();
        return Ok(context.printer.document(&json!({"removed": paths, "freed_bytes": freed}))?);
    }
    Ok(context.printer.line(format_args!("{} files removed, {freed} freed", removed.len()))?)
}

/// Log files of one stream, with their indexes, that were last written so long ago. An engine that runs keeps its live
/// file open: that one is left to it.
fn old_files(live: &Path, is_running: bool, older_than: Duration) -> Vec<PathBuf> {
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
        assert_eq!(old_files(&live, true, Duration::ZERO), [folder.path().join("stderr.log.1")]);
        assert_eq!(old_files(&live, false, Duration::ZERO).len(), 3);
        assert!(old_files(&live, false, Duration::from_hours(1)).is_empty());
    }
}
