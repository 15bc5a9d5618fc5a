//! Records as people and scripts see them: every moment in RFC 3339, whatever it is kept as.

use engine_process::ExitRecord;
use orch_core::{HomeLayout, InstanceName, ReplicaId, UnixMillis};
use serde_json::{Value, json};
use state_store::{HealthRow, RuntimeRow};

/// The columns of the runtime table that hold moments.
const MOMENTS: [&str; 5] =
    ["started_at", "last_seen_at", "last_health_ok_at", "last_restart_at", "next_restart_at"];

/// How an engine ended last; null when that is not known.
pub(crate) fn last_exit(home: &HomeLayout, name: &InstanceName, replica: ReplicaId) -> Value {
    let Some(record) = ExitRecord::read(&home.exit_record(name, replica)) else { return Value::Null };
    let mut shown = json!(record);
    shown["at"] = json!(record.at.to_rfc3339());
    shown
}

/// One row of the runtime table.
pub(crate) fn runtime(row: &RuntimeRow) -> Value {
    let mut shown = json!(row);
    for moment in MOMENTS {
        if let Some(millis) = shown[moment].as_i64() {
            shown[moment] = json!(UnixMillis(millis).to_rfc3339());
        }
    }
    shown
}

/// One health check.
pub(crate) fn health(row: &HealthRow) -> Value {
    let mut shown = json!(row);
    shown["checked_at"] = json!(row.checked_at.to_rfc3339());
    shown
}
