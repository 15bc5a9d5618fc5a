//! What is seen of instances whose config is gone or cannot be read.

use instance_config::{BrokenInstance, Catalog};
use orch_core::{DesiredState, Failure, InstanceName, ReplicaId};
use serde_json::{Value, json};

use super::{InstanceView, Viewer, seen_state, slots_at_start};
use crate::remnants::{LeftReplica, Remnant, remnant, remnants};
use crate::shown;

impl Viewer<'_> {
    /// Rows of each instance that runs, or is known to the database, without a usable config.
    pub fn remnants(&self, catalog: &Catalog) -> Result<Vec<InstanceView>, Failure> {
        let left = remnants(self.home, self.reader, catalog)?;
        Ok(left.iter().flat_map(|remnant| self.remnant_rows(remnant)).collect())
    }

    /// The document of `describe` for a name that no usable config claims; `None` when nothing is known of it.
    pub fn describe_remnant(
        &self,
        name: &InstanceName,
        broken: Option<&BrokenInstance>,
    ) -> Result<Option<Value>, Failure> {
        let Some(left) = remnant(self.home, self.reader, name)? else { return Ok(None) };
        let replica = ReplicaId::FIRST;
        let rows = self.remnant_rows(&left);
        let first = left.replicas.iter().find(|left| left.replica == replica);
        let row = first.and_then(|left| left.row.as_ref());
        let mut document = serde_json::to_value(rows.first()).unwrap_or_else(|_| json!({}));
        let folder = self.home.instance_logs(name);
        let extra = json!({
            "config": Value::Null,
            "findings": broken.map_or_else(|| json!([{"severity": "error", "field": Value::Null,
                "message": "its config is gone"}]), |broken| json!(broken.findings)),
            "runtime": row.map_or(Value::Null, shown::runtime),
            "process": self.process(name, replica, row),
            "last_exit": shown::last_exit(self.home, name, replica),
            "locked_by": self.lock_holder(name),
            "events": self.recent_events(name)?,
            "health_history": self.health_history(name)?,
            "paths": {
                "home": self.home.root(),
                "config": broken.map(|broken| &broken.path),
                "stdout": folder.join("stdout.log"),
                "stderr": folder.join("stderr.log"),
                "handoff": self.home.handoff(name, replica),
                "exit_record": self.home.exit_record(name, replica),
            },
            "replicas": rows,
        });
        if let (Some(document), Value::Object(extra)) = (document.as_object_mut(), extra) {
            document.extend(extra);
        }
        Ok(Some(document))
    }

    fn remnant_rows(&self, left: &Remnant) -> Vec<InstanceView> {
        left.replicas.iter().map(|replica| self.remnant_row(left, replica)).collect()
    }

    fn remnant_row(&self, left: &Remnant, of: &LeftReplica) -> InstanceView {
        let (name, row, live) = (&left.name, of.row.as_ref(), of.live());
        let handoff = live.and_then(|live| live.handoff.as_ref());
        let desired = left.desired.unwrap_or(DesiredState::Stopped);
        let (status, health) = seen_state(row, desired, live.is_some(), handoff.is_some());
        let started = row.and_then(|row| row.started_at).filter(|_| live.is_some());
        InstanceView {
            name: name.to_string(),
            replica_id: of.replica,
            display_name: name.to_string(),
            uid: String::new(),
            pid: live.map(|live| live.identity.pid),
            port: live.map_or(0, |live| live.identity.port),
            host: String::new(),
            backend: String::new(),
            device: None,
            model: handoff.map_or(String::new(), |file| file.model.path.display().to_string()),
            status,
            health,
            desired_state: desired,
            uptime_seconds: started.map(|started| self.now.since(started).as_secs()),
            restarts: row.map_or(0, |row| row.restarts),
            next_restart_at: None,
            slots: (self.slots)(name, of.replica).or_else(|| handoff.map(slots_at_start)),
            engine_version: row.and_then(|row| row.engine_version.clone()),
            node_id: self.node_id.to_owned(),
            last_error: Some("its config is gone or cannot be read".to_owned()),
            last_exit_code: row.and_then(|row| row.last_exit_code),
            restart_needed: false,
            denied: live.and_then(|live| live.denied.clone()),
        }
    }
}
