//! `logs clean`: files that are old enough go; what a running engine or the daemon writes to stays.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use engine_process::old_logs;
use instance_config::{Catalog, LoadedInstance};
use orch_core::{ByteCount, Failure, InstanceName, ReplicaId};
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
            let old = old_logs(live, in_use.contains(live), older_than);
            remove(old, &mut removed).map_err(|error| unreadable(&files, &error))?;
        }
    }
    if names.is_empty() {
        let home = context.home()?;
        let left = left_behind(context, &catalog, older_than)?.into_iter();
        let left = left.chain(old_logs(&home.daemon_log(), true, older_than)).collect();
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
        // The files of all replicas count as in use when one of them is.
        if context.look(|viewer| viewer.replicas(instance))?.iter().any(|row| row.pid.is_some()) {
            let of_instance = log_files(context, instance, ReplicaId::FIRST)?;
            files.extend([of_instance.stdout, of_instance.stderr]);
        }
    }
    Ok(files)
}

/// Logs of instances that are gone.
fn left_behind(context: &Context, catalog: &Catalog, older_than: Duration) -> Result<Vec<PathBuf>, Failure> {
    let home = context.home()?;
    // Engines whose config went away still write there.
    let left = context.look(|viewer| viewer.remnants(catalog))?;
    let running: Vec<String> = left.into_iter().filter(|row| row.pid.is_some()).map(|row| row.name).collect();
    let mut files = Vec::new();
    for folder in fs::read_dir(home.logs()).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let is_known = catalog.instances.iter().any(|known| known.config.name.as_str() == name)
            || catalog.broken.iter().any(|broken| broken.name == name);
        if is_known || running.contains(&name) || InstanceName::new(&name).is_err() {
            continue;
        }
        for stream in ["stdout.log", "stderr.log"] {
            files.extend(old_logs(&folder.path().join(stream), false, older_than));
        }
    }
    Ok(files)
}
