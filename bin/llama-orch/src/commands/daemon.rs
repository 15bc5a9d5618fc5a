//! `daemon`: supervision and gateway, as one process in the background.

use std::collections::BTreeSet;

use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use orchestratord::daemon;
use orchestratord::daemon_file::DaemonFile;
use serde_json::json;

use super::service;
use crate::arguments::DaemonAction;
use crate::context::Context;
use crate::daemon_control::{
    Stopped, not_running, options, restart, running_unknown, start, stop, without_file,
};
use crate::ending::{CommandResult, Ended};
use crate::runtime::block_on;
use crate::words::show_duration;

pub(super) fn run(context: &Context, action: DaemonAction) -> CommandResult {
    let home = context.home()?;
    match action {
        DaemonAction::Start { foreground: true, addr } => Ok(daemon::run(&options(home, addr.as_deref()))?),
        DaemonAction::Start { foreground: false, addr } => started(context, &start(home, addr.as_deref())?),
        DaemonAction::Restart { addr } => started(context, &restart(home, addr.as_deref())?),
        DaemonAction::Stop => stopped(context, &stop(home)?),
        DaemonAction::Status => status(context),
        DaemonAction::Install(arguments) => service::install(context, &arguments),
        DaemonAction::Uninstall(arguments) => service::uninstall(context, &arguments),
    }
}

fn started(context: &Context, file: &DaemonFile) -> CommandResult {
    let address = file.connect_address();
    if context.printer.json() {
        let document = json!({"running": true, "pid": file.pid, "address": address, "version": file.version});
        return Ok(context.printer.document(&document)?);
    }
    Ok(context.printer.line(format_args!("daemon is running: http://{address} (pid {})", file.pid))?)
}

fn stopped(context: &Context, daemon: &Stopped) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(&json!({"running": false, "pid": daemon.pid}))?);
    }
    Ok(context.printer.line("daemon is stopped; engines keep running")?)
}

fn status(context: &Context) -> CommandResult {
    let Some(client) = DaemonClient::living(context.home()?) else { return status_without(context) };
    let status = block_on(client.status())?;
    if context.printer.json() {
        return Ok(context.printer.document(&status)?);
    }
    let address = status.address.as_deref().map_or("-".to_owned(), |address| format!("http://{address}"));
    let memory = status.rss_bytes.map_or("-".to_owned(), |bytes| orch_core::ByteCount(bytes).to_string());
    Ok(context.printer.pairs(&[
        ("running", "yes".to_owned()),
        ("pid", status.pid.map_or("-".to_owned(), |pid| pid.to_string())),
        ("address", address),
        ("uptime", status.uptime_seconds.map_or("-".to_owned(), show_duration)),
        ("memory", memory),
        ("instances running", status.instances_running.to_string()),
        ("version", status.version),
    ])?)
}

/// Engines may run all the same: they need no daemon.
fn status_without(context: &Context) -> CommandResult {
    if let Some(holder) = without_file(context.home()?) {
        return Err(running_unknown(ExitCode::DaemonUnreachable, &holder).into());
    }
    if !context.printer.json() {
        return Err(not_running().into());
    }
    let running = running_instances(context)?;
    context.printer.document(&json!({
        "running": false,
        "pid": null,
        "address": null,
        "uptime_seconds": null,
        "rss_bytes": null,
        "instances_running": running,
        "version": env!("CARGO_PKG_VERSION"),
    }))?;
    Err(Ended::Told(ExitCode::DaemonNotRunning))
}

fn running_instances(context: &Context) -> Result<usize, Failure> {
    let catalog = context.catalog()?;
    let rows = context.look(|viewer| viewer.instances(&catalog))?;
    let running: BTreeSet<&str> =
        rows.iter().filter(|row| row.pid.is_some()).map(|row| row.name.as_str()).collect();
    Ok(running.len())
}
