//! `quickstart --stop`: ends what a quick start has started, and nothing else.

use std::fs;
use std::path::PathBuf;

use engine_process::StartMark;
use orch_core::{ExitCode, Failure, HomeLayout};
use orchestratord::client::DaemonClient;
use orchestratord::compose;
use orchestratord::daemon_file::{self, DaemonFile};
use pool_manager::alone;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{NAME, instance};
use crate::context::Context;
use crate::daemon_control;
use crate::ending::CommandResult;
use crate::runtime::block_on;

/// Requests in flight may take so long to finish.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The daemon that a quick start has started.
#[derive(Serialize, Deserialize)]
struct Started {
    pid: u32,
    process_started_at: StartMark,
}

fn memory(home: &HomeLayout) -> PathBuf {
    home.run().join("quickstart.json")
}

/// Remembers the daemon, so that `--stop` can tell it from one that somebody else needs.
pub(super) fn remember(home: &HomeLayout, daemon: &DaemonFile) -> Result<(), Failure> {
    let started = Started { pid: daemon.pid, process_started_at: daemon.process_started_at.clone() };
    let path = memory(home);
    engine_process::write_private(&path, json!(started).to_string().as_bytes())
        .map_err(|error| Failure::new(ExitCode::General, format!("cannot write {}: {error}", path.display())))
}

pub(super) fn run(context: &Context) -> CommandResult {
    let home = context.home()?;
    let instance_stopped = stop_instance(context)?;
    let daemon_stopped = is_ours(home) && daemon_control::stop(home).map(|_| true)?;
    // Whatever it spoke of is gone now.
    let _ = fs::remove_file(memory(home));
    if context.printer.json() {
        let document = json!({"instance_stopped": instance_stopped, "daemon_stopped": daemon_stopped});
        return Ok(context.printer.document(&document)?);
    }
    Ok(context.printer.line(match (instance_stopped, daemon_stopped) {
        (true, true) => "instance quickstart and the daemon are stopped",
        (true, false) => "instance quickstart is stopped",
        (false, true) => "the daemon is stopped",
        (false, false) => "nothing of a quick start is running",
    })?)
}

fn stop_instance(context: &Context) -> Result<bool, Failure> {
    let home = context.home()?;
    let Some(instance) = instance::known(context)? else { return Ok(false) };
    let stopped = match DaemonClient::living(home) {
        Some(client) => block_on(client.down(NAME, false, DRAIN)),
        None => alone::down(&compose::open_node(home)?, &instance, false),
    };
    match stopped {
        Ok(()) => Ok(true),
        Err(failure) if failure.exit == ExitCode::NotRunning => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn is_ours(home: &HomeLayout) -> bool {
    let started = fs::read(memory(home)).ok().and_then(|text| serde_json::from_slice::<Started>(&text).ok());
    // One that has lost its file still holds its lock.
    let living = daemon_file::living(home).map(|file| (file.pid, file.process_started_at)).or_else(|| {
        daemon_control::without_file(home).and_then(|holder| Some((holder.pid, holder.start_mark?)))
    });
    started
        .zip(living)
        .is_some_and(|(started, (pid, mark))| started.pid == pid && started.process_started_at == mark)
}
