//! The steps that touch a process, each under the lock of its instance: launch, terminate, adopt.
//!
//! Blocking on purpose: the command line calls them directly, the daemon on a blocking thread. The lock is
//! held for the step only, not while a model loads; from the spawn on, the lock that shim and engine hold
//! for as long as they live is what keeps anything from being started twice.

use engine_process::{EngineHandle, Records, StopPlan, StopTarget};
use instance_config::{InstanceConfig, LoadedInstance};
use orch_core::{
    DesiredState, EventLevel, EventType, ExitCode, Failure, Health, InstanceName, ReplicaId, Status,
    UnixMillis,
};
use serde_json::json;
use state_store::{EventQuery, NewEvent, RuntimeRow, Spawned};

use crate::actual::{Actual, LiveEngine, observe};
use crate::instance_lock::InstanceLock;
use crate::node::Node;
use crate::plan::{EngineChoice, StartPlan, plan_start, watching_spec};
use crate::record::{Recorder, of_replica};

/// How far back the telling of a process that cannot be looked at is searched.
const TOLD_LIMIT: usize = 500;

/// Who wants a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaunchCause {
    /// A user: the wish is remembered, the restart counters begin anew.
    User { desired: DesiredState },
    /// The reconciler: the wish is the reason, so that it is not written again over a newer one.
    Wish,
    /// The restart policy: counted, the wish is left alone.
    Policy,
    /// Requests that wait for an instance that is wanted on demand: the wish is left alone, and looked at again.
    Demand,
}

impl LaunchCause {
    /// What the lock tells others meanwhile.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            LaunchCause::User { .. } | LaunchCause::Wish => "up",
            LaunchCause::Policy => "restart by policy",
            LaunchCause::Demand => "load for requests",
        }
    }
}

/// A process that has been born and written down, not yet ready.
#[derive(Debug)]
pub(crate) struct Launched {
    pub handle: EngineHandle,
    pub plan: StartPlan,
}

/// Spawns the engine of a replica. Refuses when one lives already (21, or 23 while it loads).
pub(crate) fn launch(
    node: &Node,
    _lock: &InstanceLock,
    instance: &LoadedInstance,
    replica: ReplicaId,
    cause: LaunchCause,
) -> Result<Launched, Failure> {
    let config = &instance.config;
    let row = node.store.runtime(&config.name, replica)?;
    let actual = observe(&node.home, row.as_ref(), &config.name, replica);
    refuse_second(&actual, row.as_ref(), config, replica)?;
    tell_of_missing(node, row.as_ref(), &actual)?;
    let recorded = row.as_ref().and_then(|row| row.exe.as_deref());
    let engine = match (cause, recorded) {
        (LaunchCause::Policy, Some(executable)) => EngineChoice::Recorded(executable),
        _ => EngineChoice::Configured,
    };
    // Known from here on: a refusal below has a row to be written in, and leaves the wish as it was.
    make_known(node, instance)?;
    if cause == LaunchCause::Demand && node.store.desired(&config.name)? != Some(DesiredState::OnDemand) {
        let message = format!("{} is not wanted on demand any more", config.name);
        return Err(Failure::new(ExitCode::NotRunning, message));
    }
    let plan = plan_start(node, instance, replica, engine)?;
    if let LaunchCause::User { desired } = cause {
        node.store.set_desired(&config.name, desired, UnixMillis::now())?;
    }
    let handle = engine_process::launch(&node.shim_executable, &plan.spec)?;
    record_spawn(node, &plan, &handle, cause)?;
    Ok(Launched { handle, plan })
}

/// Nobody watched when the process that the row names went away.
fn tell_of_missing(node: &Node, row: Option<&RuntimeRow>, actual: &Actual) -> Result<(), Failure> {
    let Some(RuntimeRow { name, replica, pid: Some(pid), .. }) = row else { return Ok(()) };
    if matches!(actual, Actual::Gone) {
        Recorder { store: &node.store, name, replica: *replica }.process_missing(*pid)?;
    }
    Ok(())
}

fn refuse_second(
    actual: &Actual,
    row: Option<&RuntimeRow>,
    config: &InstanceConfig,
    replica: ReplicaId,
) -> Result<(), Failure> {
    let name = replica.display_name(&config.name);
    let Actual::Ours(live) = actual else { return Ok(()) };
    let written = row.filter(|_| live.recorded).map_or(Status::Running, |row| row.status);
    // The shim tells readiness also when nobody waited for it; of a warm-up it knows nothing.
    let announced = live.handoff.is_some() && !config.healthcheck.warmup_enabled;
    let status = if written == Status::Starting && announced { Status::Running } else { written };
    let pid = live.identity.pid;
    Err(match status {
        Status::Starting => {
            Failure::new(ExitCode::Starting, format!("{name} is already starting (pid {pid})"))
                .hint(format!("watch it: llama-orch logs -f {}", config.name))
        }
        Status::Stopping => Failure::new(ExitCode::Stopping, format!("{name} is being stopped (pid {pid})")),
        _ => Failure::new(ExitCode::AlreadyRunning, format!("{name} is already running (pid {pid})")),
    })
}

fn record_spawn(
    node: &Node,
    plan: &StartPlan,
    handle: &EngineHandle,
    cause: LaunchCause,
) -> Result<(), Failure> {
    let spec = &plan.spec;
    let identity = &handle.identity;
    let now = UnixMillis::now();
    let spawned = Spawned {
        name: &spec.instance,
        replica: spec.replica,
        pid: identity.pid,
        process_started_at: &identity.started_at.0,
        exe: &identity.executable,
        port: identity.port,
        cmdline: &spec.args,
        engine_version: spec.engine_version.as_deref(),
        config_hash: &spec.config_hash,
        reset_restarts: matches!(cause, LaunchCause::User { .. } | LaunchCause::Wish),
    };
    node.store.record_spawned(&spawned, now)?;
    let (event_type, verb) = match cause {
        LaunchCause::Policy => {
            node.store.record_restarted(&spec.instance, spec.replica, now)?;
            (EventType::Restarted, "restarted")
        }
        LaunchCause::User { .. } | LaunchCause::Wish => (EventType::InstanceStarted, "started"),
        LaunchCause::Demand => (EventType::InstanceStarted, "loaded on demand"),
    };
    let message = format!("{verb} as pid {} on port {}", identity.pid, identity.port);
    let meta = json!({"pid": identity.pid, "port": identity.port, "replica": spec.replica});
    let (message, meta) = of_replica(&spec.instance, spec.replica, message, Some(meta));
    let instance = Some(&spec.instance);
    node.store
        .append_event(&NewEvent { instance, level: EventLevel::Info, event_type, message, meta }, now)?;
    Ok(())
}

/// What a termination found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminated {
    Stopped,
    /// There was no process.
    NothingThere,
}

/// Ends the process tree of a replica. Somebody else's process is never touched: it only loses its place in
/// our database.
pub(crate) fn terminate(
    node: &Node,
    _lock: &InstanceLock,
    name: &InstanceName,
    host: &str,
    replica: ReplicaId,
    force: bool,
) -> Result<Terminated, Failure> {
    let row = node.store.runtime(name, replica)?;
    let actual = observe(&node.home, row.as_ref(), name, replica);
    tell_of_missing(node, row.as_ref(), &actual)?;
    let live = match actual {
        Actual::Ours(live) => live,
        Actual::Foreign { reason } => {
            Recorder { store: &node.store, name, replica }.pid_mismatch(&reason, None)?;
            return Ok(Terminated::NothingThere);
        }
        Actual::Gone => return Ok(Terminated::NothingThere),
    };
    tell_of_denied(node, name, &live)?;
    let health = row.as_ref().map_or(Health::Unknown, |row| row.health);
    let write = |status, error: Option<&str>| match &row {
        Some(_) => node.store.record_status(name, replica, status, health, error, UnixMillis::now()),
        // Only its handoff file or its lock knows it: there is no row to keep up.
        None => Ok(()),
    };
    write(Status::Stopping, None)?;
    let target = StopTarget {
        shim_pid: live.handoff.as_ref().map(|file| file.shim_pid),
        identity: live.identity,
        records: Records::of(&node.home, name, replica),
        host: host.to_owned(),
    };
    let plan = StopPlan { force, ..StopPlan::default() };
    if let Err(error) = engine_process::stop(&target, &plan) {
        let failure = Failure::from(error);
        write(Status::Running, Some(&failure.message))?;
        return Err(failure);
    }
    Ok(Terminated::Stopped)
}

/// Writes down what is wanted; makes the instance known to the database when it is not.
pub(crate) fn remember_desired(
    node: &Node,
    instance: &LoadedInstance,
    desired: DesiredState,
) -> Result<(), Failure> {
    make_known(node, instance)?;
    node.store.set_desired(&instance.config.name, desired, UnixMillis::now())?;
    Ok(())
}

/// The database knows the instance from here on; one that it knew keeps its wish.
fn make_known(node: &Node, instance: &LoadedInstance) -> Result<(), Failure> {
    let config = &instance.config;
    let uid = config.instance_uid.to_string();
    let initial = config.lifecycle.load.desired_default();
    node.store.ensure_instance(&config.name, &uid, &instance.path, initial, UnixMillis::now())?;
    Ok(())
}

/// Takes a living engine into care: writes it down if the database did not know it, and gives it a new shim if
/// its own was killed. Returns the pid of the shim that watches it now.
pub(crate) fn adopt(
    node: &Node,
    instance: &LoadedInstance,
    replica: ReplicaId,
    live: &LiveEngine,
) -> Result<u32, Failure> {
    if !live.recorded {
        record_adoption(node, instance, replica, live)?;
    }
    tell_of_denied(node, &instance.config.name, live)?;
    let spec =
        watching_spec(&node.home, instance, replica, live.identity.executable.clone(), live.identity.port);
    let shim = engine_process::adopt(&node.shim_executable, &spec, &live.identity)?;
    if live.handoff.as_ref().is_some_and(|file| file.shim_pid != shim) {
        record_new_shim(node, &instance.config.name, replica, live.identity.pid, shim)?;
    }
    Ok(shim)
}

/// Told once of each process, however often it is met.
fn tell_of_denied(node: &Node, name: &InstanceName, live: &LiveEngine) -> Result<(), Failure> {
    let Some(denied) = &live.denied else { return Ok(()) };
    let meta = json!({"pid": live.identity.pid, "started_at": live.identity.started_at, "denied": true});
    let query = EventQuery {
        instance: Some(name.clone()),
        event_type: Some(EventType::Reconciled),
        limit: TOLD_LIMIT,
        ..EventQuery::default()
    };
    if node.store.events(&query)?.iter().any(|event| event.meta.as_ref() == Some(&meta)) {
        return Ok(());
    }
    let event = NewEvent {
        instance: Some(name),
        level: EventLevel::Warning,
        event_type: EventType::Reconciled,
        message: format!("{denied}: taken for ours"),
        meta: Some(meta),
    };
    node.store.append_event(&event, UnixMillis::now())?;
    Ok(())
}

fn record_new_shim(
    node: &Node,
    name: &InstanceName,
    replica: ReplicaId,
    pid: u32,
    shim: u32,
) -> Result<(), Failure> {
    let message =
        format!("the shim of pid {pid} was gone; a new one watches it, its exit code will be unknown");
    let meta = json!({"pid": pid, "shim_pid": shim, "exit_code_known": false});
    let (message, meta) = of_replica(name, replica, message, Some(meta));
    let (instance, level) = (Some(name), EventLevel::Warning);
    let event = NewEvent { instance, level, event_type: EventType::OrphanAdopted, message, meta };
    node.store.append_event(&event, UnixMillis::now())?;
    Ok(())
}

fn record_adoption(
    node: &Node,
    instance: &LoadedInstance,
    replica: ReplicaId,
    live: &LiveEngine,
) -> Result<(), Failure> {
    let config = &instance.config;
    let now = UnixMillis::now();
    make_known(node, instance)?;
    let handoff = live.handoff.as_ref();
    let spawned = Spawned {
        name: &config.name,
        replica,
        pid: live.identity.pid,
        process_started_at: &live.identity.started_at.0,
        exe: &live.identity.executable,
        port: live.identity.port,
        cmdline: &[],
        engine_version: handoff.and_then(|file| file.engine_version.as_deref()),
        config_hash: handoff.map_or("", |file| &file.config_hash),
        reset_restarts: false,
    };
    node.store.record_spawned(&spawned, now)?;
    let message = format!("pid {} runs but was not written down; adopted", live.identity.pid);
    let meta = json!({"pid": live.identity.pid, "port": live.identity.port});
    let (message, meta) = of_replica(&config.name, replica, message, Some(meta));
    let (instance, level) = (Some(&config.name), EventLevel::Warning);
    let event = NewEvent { instance, level, event_type: EventType::OrphanAdopted, message, meta };
    node.store.append_event(&event, now)?;
    Ok(())
}
