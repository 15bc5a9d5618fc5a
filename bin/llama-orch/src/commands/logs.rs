//! `logs`: what engines say, and room made where they said too much.

mod clean;

use std::io;
use std::time::Duration;

use engine_process::{Follower, LogFiles, LogLine, Stream, StreamSelection};
use instance_config::LoadedInstance;
use orch_core::{ExitCode, Failure, InstanceName, ReplicaId, UnixMillis};
use serde_json::json;

use crate::arguments::{LogsAction, LogsArguments, StreamArgument};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::repeat;

/// Short enough that it reads as at once.
const FOLLOW_PACE: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context, arguments: &LogsArguments) -> CommandResult {
    if let Some(LogsAction::Clean { names, older_than }) = &arguments.action {
        return clean::run(context, names, *older_than);
    }
    warn_of_large_logs(context);
    let (name, numbered) = replica_of(arguments.name.as_deref().unwrap_or_default());
    let catalog = context.catalog()?;
    let replica = arguments.replica.or(numbered).unwrap_or(ReplicaId::FIRST);
    let files = match catalog.select(name) {
        Ok(instance) => log_files(context, instance, replica)?,
        Err(failure) => remnant_files(context, name, replica)?.ok_or(failure)?,
    };
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

/// `ps` shows a further replica as `name/1`.
fn replica_of(name: &str) -> (&str, Option<ReplicaId>) {
    let numbered = name.rsplit_once('/').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    numbered.map_or((name, None), |(name, number)| (name, Some(ReplicaId(number))))
}

/// Logs that together take over a gigabyte are told, wherever somebody has to do with them.
pub(super) fn warn_of_large_logs(context: &Context) {
    let Ok(home) = context.home() else { return };
    let size = engine_process::total_size(&home.logs());
    if size > engine_process::LARGE_LOGS {
        context.talk.warning(&format!("all logs together take {size}; llama-orch logs clean makes room"));
    }
}

/// Shows what several instances say from now on, each line with its instance's name, until Ctrl-C.
pub(super) fn follow_all(
    context: &Context,
    instances: &[LoadedInstance],
    stream: StreamArgument,
) -> CommandResult {
    let mut followers: Vec<(String, LogFiles, Follower)> = Vec::new();
    for instance in instances {
        for row in context.look(|viewer| viewer.replicas(instance))? {
            let files = log_files(context, instance, row.replica_id)?;
            let follower =
                Follower::new(&files, selection(stream)).map_err(|error| unreadable(&files, &error))?;
            followers.push((row.replica_id.display_name(&instance.config.name), files, follower));
        }
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

/// The usual files of a name that no usable config claims, if anything was ever written there.
fn remnant_files(context: &Context, name: &str, replica: ReplicaId) -> Result<Option<LogFiles>, Failure> {
    let Ok(name) = InstanceName::new(name) else { return Ok(None) };
    let folder = context.home()?.instance_logs(&name);
    let file = |stream: &str| engine_process::replica_log_path(&folder.join(stream), replica);
    Ok(folder.is_dir().then(|| LogFiles { stdout: file("stdout.log"), stderr: file("stderr.log") }))
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
