//! Engines that no config claims: told once, never ended.

use engine_process::StartMark;
use instance_config::Catalog;
use orch_core::{EventLevel, EventType, Failure, InstanceName, UnixMillis};
use serde_json::json;
use state_store::{EventQuery, NewEvent};

use crate::node::Node;
use crate::remnants::{LeftReplica, remnants};

/// So many of the latest reports are remembered; older ones may be told again.
const REMEMBERED: usize = 1000;

/// Looks for engines without a config: what is left of instances of this home, and servers that were started by hand.
pub(crate) fn tell(node: &Node, catalog: &Catalog) -> Result<(), Failure> {
    let mut told = Told::read(node)?;
    for remnant in remnants(&node.home, Some(&node.store), catalog)? {
        for live in remnant.replicas.iter().filter_map(LeftReplica::live) {
            let (pid, name) = (live.identity.pid, &remnant.name);
            let message = format!(
                "pid {pid} runs, but its config is gone or cannot be read; `llama-orch down {name}` ends it"
            );
            told.once(node, Some(name), pid, &live.identity.started_at, message)?;
        }
    }
    for stranger in engine_process::unclaimed_engines() {
        let message = format!(
            "pid {} ({}) is a llama-server that no instance claims; it is left alone",
            stranger.pid,
            stranger.executable.display()
        );
        told.once(node, None, stranger.pid, &stranger.started_at, message)?;
    }
    Ok(())
}

/// Which processes were reported, by this daemon or an earlier one.
struct Told(Vec<(u64, String)>);

impl Told {
    fn read(node: &Node) -> Result<Self, Failure> {
        let query = EventQuery {
            event_type: Some(EventType::OrphanFound),
            limit: REMEMBERED,
            ..EventQuery::default()
        };
        let events = node.store.events(&query)?;
        let process = |meta: &serde_json::Value| {
            Some((meta["pid"].as_u64()?, meta["process_started_at"].as_str()?.to_owned()))
        };
        Ok(Self(events.iter().filter_map(|event| process(event.meta.as_ref()?)).collect()))
    }

    fn once(
        &mut self,
        node: &Node,
        instance: Option<&InstanceName>,
        pid: u32,
        started_at: &StartMark,
        message: String,
    ) -> Result<(), Failure> {
        let process = (u64::from(pid), started_at.to_string());
        if self.0.contains(&process) {
            return Ok(());
        }
        let event = NewEvent {
            instance,
            level: EventLevel::Warning,
            event_type: EventType::OrphanFound,
            message,
            meta: Some(json!({"pid": pid, "process_started_at": started_at})),
        };
        node.store.append_event(&event, UnixMillis::now())?;
        self.0.push(process);
        Ok(())
    }
}
