//! What people and scripts see of instances: the rows of `ps` and the document of `describe`.
//!
//! Built from config, database and system without changing a byte of any.

mod left;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use engine_process::{Handoff, LockHolder, Ownership, ProcessIdentity, Records};
use instance_config::{BrokenInstance, Catalog, LoadedInstance, MemoryShare, Place};
use orch_api::Event;
use orch_core::{
    DesiredState, EngineProfile, Failure, Health, HomeLayout, InstanceName, ReplicaId, Status, UnixMillis,
    redact_args, redact_env_value,
};
use serde_json::{Value, json};
use state_store::{EventQuery, RuntimeRow, StateReader};

use crate::actual::{Actual, LiveEngine, observe, row_identity};
use crate::changes;
use crate::shown;
use crate::traces::Traces;

pub use orch_api::{InstanceView, Slots};

/// Everything that views are made from.
pub struct Viewer<'a> {
    pub home: &'a HomeLayout,
    /// `None` where the home has no database yet.
    pub reader: Option<&'a StateReader>,
    pub node_id: &'a str,
    pub now: UnixMillis,
    /// Slots of a replica, where somebody counts them.
    pub slots: &'a dyn Fn(&InstanceName, ReplicaId) -> Option<Slots>,
}

impl Viewer<'_> {
    /// A row for each replica of each instance of the catalog, in its order.
    pub fn instances(&self, catalog: &Catalog) -> Result<Vec<InstanceView>, Failure> {
        // Two questions to the database for all, not two for each.
        let (rows, known) = match self.reader {
            Some(reader) => (reader.runtimes()?, reader.instances()?),
            None => (Vec::new(), Vec::new()),
        };
        let traces = Traces::look(self.home, self.reader)?;
        let desired: HashMap<_, _> = known.iter().map(|known| (&known.name, known.desired_state)).collect();
        let views = catalog.instances.iter().flat_map(|instance| {
            let desired = desired.get(&instance.config.name).copied();
            self.rows_of(instance, &rows, desired, &traces)
        });
        Ok(views.collect())
    }

    /// A row for each replica of one instance.
    pub fn replicas(&self, instance: &LoadedInstance) -> Result<Vec<InstanceView>, Failure> {
        let rows = self.reader.map(StateReader::runtimes).transpose()?.unwrap_or_default();
        let desired = self.desired(&instance.config.name)?;
        Ok(self.rows_of(instance, &rows, desired, &Traces::look(self.home, self.reader)?))
    }

    /// Those that the config asks for, and every other that lives. Where devices decide how many there are, those that
    /// were started tell.
    fn rows_of(
        &self,
        instance: &LoadedInstance,
        rows: &[RuntimeRow],
        desired: Option<DesiredState>,
        traces: &Traces,
    ) -> Vec<InstanceView> {
        let name = &instance.config.name;
        let count = instance.config.fixed_replicas();
        let written: BTreeMap<_, _> =
            rows.iter().filter(|row| row.name == *name).map(|row| (row.replica, row)).collect();
        let mut sought: BTreeSet<ReplicaId> = (0..count.unwrap_or(1)).map(ReplicaId).collect();
        sought.extend(traces.of(name).chain(written.keys().copied()));
        let view = |replica: ReplicaId| {
            let row = written.get(&replica).copied();
            let actual = observe(self.home, row, name, replica);
            let is_asked_for =
                count.map_or(replica == ReplicaId::FIRST || row.is_some(), |it| replica.0 < it);
            let shown = is_asked_for || matches!(actual, Actual::Ours(_));
            shown.then(|| self.assemble(instance, replica, row, desired, &actual))
        };
        sought.into_iter().filter_map(view).collect()
    }

    /// The row of one instance: that of its first replica.
    pub fn instance(&self, instance: &LoadedInstance) -> Result<InstanceView, Failure> {
        let (name, replica) = (&instance.config.name, ReplicaId::FIRST);
        let row = self.row(name, replica)?;
        let actual = observe(self.home, row.as_ref(), name, replica);
        Ok(self.assemble(instance, replica, row.as_ref(), self.desired(name)?, &actual))
    }

    fn desired(&self, name: &InstanceName) -> Result<Option<DesiredState>, Failure> {
        Ok(match self.reader {
            Some(reader) => reader.desired(name)?,
            None => None,
        })
    }

    fn row(&self, name: &InstanceName, replica: ReplicaId) -> Result<Option<RuntimeRow>, Failure> {
        Ok(match self.reader {
            Some(reader) => reader.runtime(name, replica)?,
            None => None,
        })
    }

    fn assemble(
        &self,
        instance: &LoadedInstance,
        replica: ReplicaId,
        row: Option<&RuntimeRow>,
        desired: Option<DesiredState>,
        actual: &Actual,
    ) -> InstanceView {
        let config = &instance.config.of_replica(replica);
        let live = match actual {
            Actual::Ours(live) => Some(live),
            _ => None,
        };
        let identity = live.map(|live| &live.identity);
        let desired = match desired {
            // The older tool wrote no wishes down: wanted is what still runs.
            Some(DesiredState::Running) if identity.is_none() && row.is_some_and(is_older_tools) => {
                DesiredState::Stopped
            }
            Some(desired) => desired,
            None => config.lifecycle.load.desired_default(),
        };
        let handoff = live.and_then(|live| live.handoff.as_ref());
        // Of an engine that has to be warm the handoff file says too little.
        let ready = handoff.is_some() && !config.healthcheck.warmup_enabled;
        let (status, health) = seen_state(row, desired, identity.is_some(), ready);
        let started = row.and_then(|row| row.started_at).filter(|_| identity.is_some());
        let hash = row.and_then(|row| row.config_hash.as_deref()).filter(|hash| !hash.is_empty());
        InstanceView {
            name: config.name.to_string(),
            replica_id: replica,
            display_name: config.display_name.clone(),
            uid: config.instance_uid.to_string(),
            pid: identity.map(|identity| identity.pid),
            port: identity.map_or(config.server.port, |identity| identity.port),
            host: config.server.host.clone(),
            backend: config.gpu.backend.label().to_owned(),
            device: config.gpu.device_id.filter(|_| config.gpu.backend != instance_config::Backend::Cpu),
            model: config.model.path.clone(),
            status,
            health,
            desired_state: desired,
            uptime_seconds: started.map(|started| self.now.since(started).as_secs()),
            restarts: row.map_or(0, |row| row.restarts),
            next_restart_at: row.and_then(|row| row.next_restart_at).map(UnixMillis::to_rfc3339),
            slots: (self.slots)(&config.name, replica).or_else(|| handoff.map(slots_at_start)),
            engine_version: row.and_then(|row| row.engine_version.clone()),
            node_id: self.node_id.to_owned(),
            last_error: row.and_then(|row| row.last_error.clone()),
            last_exit_code: row.and_then(|row| row.last_exit_code),
            restart_needed: identity.is_some()
                && hash.is_some_and(|hash| hash != instance_config::config_hash(config)),
            denied: live.and_then(|live| live.denied.clone()),
        }
    }

    /// The document of `describe`. `profile` is what is known of the engine that would be used; an error is shown.
    pub fn describe(
        &self,
        instance: &LoadedInstance,
        profile: &Result<EngineProfile, Failure>,
    ) -> Result<Value, Failure> {
        let replica = ReplicaId::FIRST;
        // The command line is the first replica's, the config everybody's.
        let (config, instance) = (&instance.config, &instance.of_replica(replica));
        let name = &config.name;
        let row = self.row(name, replica)?;
        let view = self.instance(instance)?;
        let (command, env) = self.effective_command(instance, profile, view.port);
        let mut document = serde_json::to_value(&view).unwrap_or_else(|_| json!({}));
        let extra = json!({
            "config": config.shown(),
            "effective_command": command,
            "changes": self.changes(instance, profile, &view, row.as_ref()),
            "env": env,
            "engine": match profile {
                Ok(profile) => json!({"executable": profile.executable, "version": profile.version}),
                Err(failure) => json!({"error": failure.message, "hint": failure.hint}),
            },
            "memory_fit": self.memory_fit(instance, profile),
            "runtime": row.as_ref().map_or(Value::Null, shown::runtime),
            "process": self.process(name, replica, row.as_ref()),
            "last_exit": shown::last_exit(self.home, name, replica),
            "locked_by": self.lock_holder(name),
            "findings": instance.findings,
            "events": self.recent_events(name)?,
            "health_history": self.health_history(name)?,
            "paths": self.paths(instance, replica),
            "replicas": self.replica_sheets(instance)?,
        });
        if let (Some(document), Value::Object(extra)) = (document.as_object_mut(), extra) {
            document.extend(extra);
        }
        Ok(document)
    }

    /// What each replica has for itself.
    fn replica_sheets(&self, instance: &LoadedInstance) -> Result<Vec<Value>, Failure> {
        let name = &instance.config.name;
        let mut sheets = Vec::new();
        for view in self.replicas(instance)? {
            let replica = view.replica_id;
            let row = self.row(name, replica)?;
            let mut sheet = serde_json::to_value(&view).unwrap_or_else(|_| json!({}));
            sheet["runtime"] = row.as_ref().map_or(Value::Null, shown::runtime);
            sheet["process"] = self.process(name, replica, row.as_ref());
            sheet["last_exit"] = shown::last_exit(self.home, name, replica);
            sheet["paths"] = self.paths(instance, replica);
            sheets.push(sheet);
        }
        Ok(sheets)
    }

    /// What one engine of it will take, against what its places have in all; null where its model is not there.
    fn memory_fit(&self, instance: &LoadedInstance, profile: &Result<EngineProfile, Failure>) -> Value {
        let config = &instance.config;
        let devices = profile.as_ref().map_or(&[][..], |profile| &profile.devices[..]);
        let model = instance_config::resolve_model_path(config, &instance.path, self.home);
        let Some(estimate) = instance_config::estimate_memory(config, self.home, &model, devices) else {
            return Value::Null;
        };
        let has = |place: &Place| match place {
            Place::Host => engine_process::host_memory().map(|memory| memory.total),
            Place::Device(id) => devices.iter().find(|device| device.id == *id).map(|it| it.memory_total),
        };
        let place = |(place, share): (&Place, &MemoryShare)| {
            json!({
                "place": place, "weights_bytes": share.weights, "cache_bytes": share.cache,
                "working_bytes": share.working, "total_bytes": share.total(), "has_bytes": has(place),
            })
        };
        let short =
            |(place, share): (&Place, &MemoryShare)| has(place).is_some_and(|has| has < share.total());
        json!({
            "fits": estimate.at_most || !estimate.places.iter().any(short),
            "at_most": estimate.at_most,
            "places": estimate.places.iter().map(place).collect::<Vec<_>>(),
        })
    }

    /// What the config asks for and the running engine does not have.
    fn changes(
        &self,
        instance: &LoadedInstance,
        profile: &Result<EngineProfile, Failure>,
        view: &InstanceView,
        row: Option<&RuntimeRow>,
    ) -> Value {
        let recorded = row.and_then(|row| row.cmdline.as_deref()).filter(|line| !line.is_empty());
        let (true, Some(recorded)) = (view.restart_needed, recorded) else { return json!([]) };
        // A port that the system chose is no change; one that the config names is.
        let port = match instance.config.server.port {
            0 => view.port,
            port => port,
        };
        let (words, _) = self.effective_command(instance, profile, port);
        let Some((_, words)) = words.split_first() else { return json!([]) };
        let arguments = changes::arguments(recorded, &words.join(" "));
        if arguments.is_empty() {
            return json!([{"argument": "variables or logs", "running": Value::Null, "config": Value::Null}]);
        }
        json!(arguments)
    }

    fn effective_command(
        &self,
        instance: &LoadedInstance,
        profile: &Result<EngineProfile, Failure>,
        port: u16,
    ) -> (Vec<String>, Value) {
        let config = &instance.config;
        let Ok(profile) = profile else { return (Vec::new(), json!({})) };
        let model = instance_config::resolve_model_path(config, &instance.path, self.home);
        let command = instance_config::engine_command(config, self.home, profile, &model, port);
        let mut line = vec![profile.executable.display().to_string()];
        line.extend(redact_args(&command.args));
        let env: serde_json::Map<String, Value> = command
            .env_overrides
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(redact_env_value(key, value))))
            .collect();
        (line, Value::Object(env))
    }

    fn process(&self, name: &InstanceName, replica: ReplicaId, row: Option<&RuntimeRow>) -> Value {
        let Actual::Ours(live) = observe(self.home, row, name, replica) else {
            let records = Records::of(self.home, name, replica);
            let look = |identity: ProcessIdentity| (identity.pid, identity.check_by(&records));
            return match row.and_then(row_identity).map(look) {
                Some((pid, Ownership::Foreign { reason } | Ownership::Denied { reason })) => {
                    json!({"ours": false, "pid": pid, "reason": reason})
                }
                Some((pid, _)) => json!({"ours": false, "reason": format!("pid {pid} is gone")}),
                None => json!({"ours": false, "reason": "no process"}),
            };
        };
        let shim = live.handoff.as_ref().map(|file| file.shim_pid);
        // Until the handoff file is there, the shim that started the engine is with it.
        let exit_code_known = shim.is_none() || engine_process::parent_pid(live.identity.pid) == shim;
        json!({
            "ours": true,
            "pid": live.identity.pid,
            "started_at": live.identity.started_at,
            "executable": live.identity.executable,
            "port": live.identity.port,
            "shim_pid": shim,
            "exit_code_known": exit_code_known,
            "reason": why_ours(&live, exit_code_known),
            "rss_bytes": engine_process::rss_bytes(live.identity.pid),
        })
    }

    fn lock_holder(&self, name: &InstanceName) -> Option<LockHolder> {
        engine_process::holder(&self.home.instance_lock(name))
    }

    fn recent_events(&self, name: &InstanceName) -> Result<Value, Failure> {
        let Some(reader) = self.reader else { return Ok(json!([])) };
        let query = EventQuery { instance: Some(name.clone()), limit: 10, ..EventQuery::default() };
        let events = reader.events(&query)?;
        Ok(json!(events.iter().map(told_event).collect::<Vec<_>>()))
    }

    fn health_history(&self, name: &InstanceName) -> Result<Value, Failure> {
        let Some(reader) = self.reader else { return Ok(json!([])) };
        Ok(reader.health_history(name, 10)?.iter().map(shown::health).collect())
    }

    fn paths(&self, instance: &LoadedInstance, replica: ReplicaId) -> Value {
        let config = &instance.config;
        let log =
            |template: &str| -> PathBuf { instance_config::log_path(template, config, self.home, replica) };
        json!({
            "home": self.home.root(),
            "config": instance.path,
            "model": instance_config::resolve_model_path(config, &instance.path, self.home),
            "stdout": log(&config.logs.stdout),
            "stderr": log(&config.logs.stderr),
            "handoff": self.home.handoff(&config.name, replica),
            "exit_record": self.home.exit_record(&config.name, replica),
        })
    }
}

fn why_ours(live: &LiveEngine, exit_code_known: bool) -> String {
    let agree = live.denied.as_deref().unwrap_or("pid, start time, executable and port agree");
    let ending =
        if exit_code_known { "" } else { "; its first shim was killed, so its exit code will be unknown" };
    format!("{agree}{ending}")
}

/// What the handoff file tells: all of them idle, for whoever counts requests is not there.
fn slots_at_start(file: &Handoff) -> Slots {
    Slots { idle: file.slots_free, busy: file.slots_total.saturating_sub(file.slots_free) }
}

/// An event as `events --json` prints it.
pub fn told_event(event: &state_store::EventRow) -> Event {
    Event {
        id: event.id,
        ts: event.ts.to_rfc3339(),
        instance: event.instance.clone(),
        level: event.level.to_string(),
        event_type: event.event_type.clone(),
        message: event.message.clone(),
        meta: event.meta.clone(),
    }
}

/// A config that cannot be used, as one line.
pub fn broken_line(broken: &BrokenInstance) -> String {
    let first = broken.findings.first();
    let what = first.map_or("cannot be read", |finding| finding.message.as_str());
    let field = first.and_then(|finding| finding.field.as_deref());
    let field = field.map_or(String::new(), |field| format!("{field}: "));
    format!("{}: {field}{what} ({})", broken.name, broken.path.display())
}

/// A process that is taken for ours though nobody may look at it, as one line.
pub fn denied_line(view: &InstanceView) -> Option<String> {
    Some(format!("{}: {}: taken for ours", view.name, view.denied.as_ref()?))
}

/// Only the older tool writes a process down without its start mark.
fn is_older_tools(row: &RuntimeRow) -> bool {
    row.pid.is_some() && row.process_started_at.is_none()
}

/// What a row means when nobody keeps it up to date: a process that is gone has crashed or was stopped, whatever
/// the row says.
fn seen_state(row: Option<&RuntimeRow>, desired: DesiredState, alive: bool, ready: bool) -> (Status, Health) {
    let Some(row) = row else {
        return if alive { (Status::Running, Health::Unknown) } else { (Status::Stopped, Health::Unknown) };
    };
    if alive && ready && row.status == Status::Starting {
        // Whoever started it did not live, or did not wait, to write down that it became ready.
        return (Status::Running, Health::Healthy);
    }
    if alive {
        let status = if row.status.has_process() { row.status } else { Status::Running };
        return (status, row.health);
    }
    let status = match row.status {
        // The restart policy waits: no process is expected.
        Status::Starting if row.next_restart_at.is_some() => Status::Starting,
        Status::Starting | Status::Running | Status::Stopping if desired == DesiredState::Stopped => {
            Status::Stopped
        }
        Status::Starting | Status::Running | Status::Stopping => Status::Crashed,
        other => other,
    };
    (status, Health::Unknown)
}
