//! `ps`: what there is, and how it is.

use std::path::Path;

use instance_config::BrokenInstance;
use orch_core::{DesiredState, Failure, Health, ReplicaId, Status, UnixMillis};
use orchestratord::client::DaemonClient;
use pool_manager::view::{InstanceView, broken_line};

use crate::arguments::PsArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::{block_on, watch};
use crate::targets::warn_of_broken;
use crate::words::{or_dash, show_duration};

const HEADINGS: [&str; 11] =
    ["NAME", "PID", "PORT", "BACKEND", "DEVICE", "MODEL", "STATUS", "HEALTH", "SLOTS", "UPTIME", "RESTARTS"];

pub(super) fn run(context: &Context, arguments: &PsArguments) -> CommandResult {
    watch(arguments.watch, || {
        let rows = rows(context, arguments.all)?;
        if arguments.watch && context.printer.json() {
            return Ok(context.printer.record(&rows)?);
        }
        context.printer.clear_screen()?;
        show(context, &rows)
    })
}

/// Prints rows as `ps` does.
pub(super) fn show(context: &Context, rows: &[InstanceView]) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    let now = UnixMillis::now();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, now)).collect();
    Ok(context.printer.table(&HEADINGS, &cells)?)
}

/// The instances, as whoever keeps them sees them.
pub(super) fn rows(context: &Context, all: bool) -> Result<Vec<InstanceView>, Failure> {
    match context.remote()? {
        Some(client) => block_on(client.instances()),
        None => home_rows(context, all),
    }
}

/// The instances of this home, as its daemon sees them where there is one.
pub(super) fn home_rows(context: &Context, all: bool) -> Result<Vec<InstanceView>, Failure> {
    let catalog = context.catalog()?;
    let daemon = DaemonClient::living(context.home()?);
    let asked = daemon.and_then(|client| match block_on(client.instances()) {
        Ok(rows) => Some(rows),
        Err(failure) => {
            context.talk.warning(&failure.message);
            None
        }
    });
    let mut rows = match asked {
        Some(rows) => rows,
        None => context.look(|viewer| viewer.instances(&catalog))?,
    };
    if all {
        let node_id = context.node_id()?;
        rows.extend(catalog.broken.iter().map(|broken| broken_row(broken, &node_id)));
    } else {
        warn_of_broken(context, &catalog);
    }
    Ok(rows)
}

/// An instance of which only its config's faults are known.
fn broken_row(broken: &BrokenInstance, node_id: &str) -> InstanceView {
    InstanceView {
        name: broken.name.clone(),
        replica_id: ReplicaId::FIRST,
        display_name: broken.name.clone(),
        uid: String::new(),
        pid: None,
        port: broken.port.unwrap_or(0),
        host: String::new(),
        backend: String::new(),
        device: None,
        model: String::new(),
        status: Status::Error,
        health: Health::Unknown,
        desired_state: DesiredState::Stopped,
        uptime_seconds: None,
        restarts: 0,
        next_restart_at: None,
        slots: None,
        engine_version: None,
        node_id: node_id.to_owned(),
        last_error: Some(broken_line(broken)),
        last_exit_code: None,
        restart_needed: false,
    }
}

fn cells(row: &InstanceView, now: UnixMillis) -> Vec<String> {
    let name = match row.replica_id {
        ReplicaId::FIRST => row.name.clone(),
        ReplicaId(number) => format!("{}/{number}", row.name),
    };
    vec![
        name,
        or_dash(row.pid),
        if row.port == 0 { "-".to_owned() } else { row.port.to_string() },
        or_dash(Some(&row.backend).filter(|backend| !backend.is_empty())),
        device(row),
        or_dash(Path::new(&row.model.replace('\\', "/")).file_name().map(|name| name.to_string_lossy())),
        status(row, now),
        row.health.to_string(),
        or_dash(row.slots.map(|slots| format!("{}/{}", slots.busy, slots.idle + slots.busy))),
        or_dash(row.uptime_seconds.map(show_duration)),
        row.restarts.to_string(),
    ]
}

fn device(row: &InstanceView) -> String {
    match row.device {
        Some(device) => device.to_string(),
        None if row.backend.is_empty() || row.backend == "cpu" => "-".to_owned(),
        None => "all".to_owned(),
    }
}

/// The word, and what would make somebody wonder.
fn status(row: &InstanceView, now: UnixMillis) -> String {
    let next = row.next_restart_at.as_deref().and_then(UnixMillis::from_rfc3339);
    match (row.status, next, row.last_exit_code) {
        (Status::Starting, Some(at), _) => {
            format!("starting (in {})", show_duration(at.since(now).as_secs()))
        }
        (Status::Crashed, _, Some(code)) => format!("crashed ({code})"),
        (status, ..) if row.restart_needed => format!("{status} (restart needed)"),
        (status, ..) => status.to_string(),
    }
}
