//! Instances in words: the cells of every table that lists them.

use std::path::Path;

use instance_config::BrokenInstance;
use orch_core::{DesiredState, Health, ReplicaId, Status, UnixMillis};
use pool_manager::view::{InstanceView, broken_line};

use crate::words::{or_dash, show_duration, show_slots};

pub(crate) const HEADINGS: [&str; 11] =
    ["NAME", "PID", "PORT", "BACKEND", "DEVICE", "MODEL", "STATUS", "HEALTH", "SLOTS", "UPTIME", "RESTARTS"];

/// The first replica goes by its instance's name.
pub(crate) fn replica_name(name: &str, replica: ReplicaId) -> String {
    match replica {
        ReplicaId::FIRST => name.to_owned(),
        ReplicaId(number) => format!("{name}/{number}"),
    }
}

/// An instance of which only its config's faults are known.
pub(crate) fn broken_row(broken: &BrokenInstance, node_id: &str) -> InstanceView {
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
        denied: None,
    }
}

/// The words under [`HEADINGS`].
pub(crate) fn cells(row: &InstanceView, now: UnixMillis) -> Vec<String> {
    vec![
        replica_name(&row.name, row.replica_id),
        or_dash(row.pid),
        if row.port == 0 { "-".to_owned() } else { row.port.to_string() },
        or_dash(Some(&row.backend).filter(|backend| !backend.is_empty())),
        device(row),
        or_dash(Path::new(&row.model.replace('\\', "/")).file_name().map(|name| name.to_string_lossy())),
        status(row, now),
        row.health.to_string(),
        or_dash(row.slots.map(show_slots)),
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
