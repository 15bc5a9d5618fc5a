//! The node plane without a daemon: one command, one step, carried out by the command itself.

use std::path::Path;
use std::time::{Duration, Instant};

use instance_config::LoadedInstance;
use orch_core::{DesiredState, ExitCode, Failure, InstanceName, ReplicaId, Status, UnixMillis};

use crate::actual::{Actual, observe};
use crate::crash::CrashReport;
use crate::engine::Engine;
use crate::lifecycle::ProbeOutcome;
use crate::node::Node;
use crate::operate::{self, InstanceLock, LaunchCause, Launched, Terminated};
use crate::policy::desired_after_up;
use crate::record::Recorder;

/// Time between two looks at a loading engine.
const PROBE_PACE: Duration = Duration::from_millis(50);
/// Where a port is waited for when no config tells.
const LOOPBACK: &str = "127.0.0.1";
/// The shim needs a moment to write down how its engine ended.
const EXIT_RECORD_WAIT: Duration = Duration::from_secs(2);

/// Starts an instance. Returns the warnings that the user should see.
pub async fn up(
    node: &Node,
    instance: &LoadedInstance,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let lock = InstanceLock::acquire(node, &instance.config.name, "up")?;
    start(node, lock, instance, wait).await
}

/// Stops and starts an instance under one lock; starts a stopped one.
pub async fn restart(
    node: &Node,
    instance: &LoadedInstance,
    force: bool,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let lock = InstanceLock::acquire(node, &instance.config.name, "restart")?;
    let (name, host) = (&instance.config.name, &instance.config.server.host);
    if operate::terminate(node, &lock, name, host, ReplicaId::FIRST, force)? == Terminated::Stopped {
        recorder(node, instance).stopped()?;
    }
    start(node, lock, instance, wait).await
}

/// Stops an instance; it stays down.
pub fn down(node: &Node, instance: &LoadedInstance, force: bool) -> Result<(), Failure> {
    let name = &instance.config.name;
    let lock = InstanceLock::acquire(node, name, "down")?;
    let was_wanted = node.store.desired(name)?.is_some_and(|desired| desired != DesiredState::Stopped);
    // The wish first: whatever becomes of the stop, it stands.
    operate::remember_desired(node, instance, DesiredState::Stopped)?;
    let found = operate::terminate(node, &lock, name, &instance.config.server.host, ReplicaId::FIRST, force)?;
    recorder(node, instance).stopped()?;
    if found == Terminated::NothingThere && !was_wanted {
        return Err(Failure::new(ExitCode::NotRunning, format!("{name} is not running")));
    }
    Ok(())
}

/// Stops an engine whose config is gone or cannot be read: name, database, handoff file and lock are enough.
pub fn down_by_name(node: &Node, name: &InstanceName, force: bool) -> Result<(), Failure> {
    let lock = InstanceLock::acquire(node, name, "down")?;
    let known = node.store.instance(name)?.is_some();
    if known {
        node.store.set_desired(name, DesiredState::Stopped, UnixMillis::now())?;
    }
    let found = operate::terminate(node, &lock, name, LOOPBACK, ReplicaId::FIRST, force)?;
    if known {
        Recorder { store: &node.store, name, replica: ReplicaId::FIRST }.stopped()?;
    }
    match found {
        Terminated::Stopped => Ok(()),
        Terminated::NothingThere => Err(Failure::new(ExitCode::NotRunning, format!("{name} is not running"))),
    }
}

/// Removes an instance; a running one only with `force`.
pub fn remove(node: &Node, instance: &LoadedInstance, force: bool, keep_logs: bool) -> Result<(), Failure> {
    let config = &instance.config;
    remove_by_name(node, &config.name, &config.server.host, Some(&instance.path), force, keep_logs)
}

/// Removes what is left of an instance without a usable config; `config` is the file that cannot be used, if there is
/// one.
pub fn remove_remnant(
    node: &Node,
    name: &InstanceName,
    config: Option<&Path>,
    force: bool,
    keep_logs: bool,
) -> Result<(), Failure> {
    remove_by_name(node, name, LOOPBACK, config, force, keep_logs)
}

fn remove_by_name(
    node: &Node,
    name: &InstanceName,
    host: &str,
    config: Option<&Path>,
    force: bool,
    keep_logs: bool,
) -> Result<(), Failure> {
    let lock = InstanceLock::acquire(node, name, "rm")?;
    let row = node.store.runtime(name, ReplicaId::FIRST)?;
    if let Actual::Ours(_) = observe(&node.home, row.as_ref(), name, ReplicaId::FIRST) {
        if !force {
            return Err(crate::removal::still_running(name));
        }
        operate::terminate(node, &lock, name, host, ReplicaId::FIRST, true)?;
    }
    crate::removal::remove(node, &lock, name, config, keep_logs)
}

async fn start(
    node: &Node,
    lock: InstanceLock,
    instance: &LoadedInstance,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let desired = desired_after_up(&instance.config);
    let launched =
        match operate::launch(node, &lock, instance, ReplicaId::FIRST, LaunchCause::User { desired }) {
            Ok(launched) => launched,
            Err(failure) => {
                if !matches!(failure.exit, ExitCode::AlreadyRunning | ExitCode::Starting | ExitCode::Stopping)
                {
                    recorder(node, instance).start_failed(&failure, None)?;
                }
                return Err(failure);
            }
        };
    // From here on shim and engine hold their own lock; others may look, wait or stop.
    drop(lock);
    let warnings = launched.plan.warnings.clone();
    match wait {
        Some(limit) => await_ready(node, instance, launched, limit).await.map(|()| warnings),
        None => Ok(warnings),
    }
}

/// Waits until the engine is ready, is gone, makes no progress, or the limit has passed.
async fn await_ready(
    node: &Node,
    instance: &LoadedInstance,
    launched: Launched,
    limit: Duration,
) -> Result<(), Failure> {
    let config = &instance.config;
    let handle = launched.handle;
    let (pid, mark) = (handle.identity.pid, handle.identity.started_at.clone());
    let mut engine =
        Engine::new(&node.home, config, ReplicaId::FIRST, handle.identity, Some(handle.shim_pid));
    let begun = Instant::now();
    let mut last_progress = begun;
    let mut cold = None;
    let exit = engine_process::wait_for_exit(pid, &mark);
    tokio::pin!(exit);
    loop {
        let examination = tokio::select! {
            () = &mut exit => return Err(died(node, instance, pid)?),
            examination = engine.clone().examine() => examination,
            () = tokio::time::sleep(limit.saturating_sub(begun.elapsed())) => {
                return Err(still_loading(instance, limit, cold.as_deref()));
            }
        };
        engine.progress = examination.progress;
        if let Some(reason) = examination.cold.filter(|reason| cold.as_ref() != Some(reason)) {
            recorder(node, instance).cold(&reason)?;
            cold = Some(reason);
        }
        match examination.report.outcome {
            ProbeOutcome::Healthy => return Ok(recorder(node, instance).ready()?),
            ProbeOutcome::Loading { progressed: true } => last_progress = Instant::now(),
            ProbeOutcome::Loading { progressed: false } | ProbeOutcome::Failed { .. } => {}
        }
        if last_progress.elapsed() >= config.healthcheck.load_stall {
            let lock = InstanceLock::acquire(node, &config.name, "up")?;
            let (name, host) = (&config.name, &config.server.host);
            operate::terminate(node, &lock, name, host, ReplicaId::FIRST, false)?;
            let why = cold.map_or(String::new(), |cold| format!(": {cold}"));
            let message = format!("loading {} made no progress{why}", config.name);
            let failure = Failure::new(ExitCode::StartFailed, message);
            recorder(node, instance).start_failed(&failure, None)?;
            return Err(failure);
        }
        tokio::time::sleep(PROBE_PACE).await;
    }
}

fn still_loading(instance: &LoadedInstance, limit: Duration, cold: Option<&str>) -> Failure {
    let name = &instance.config.name;
    let why = cold.map_or(String::new(), |cold| format!(": {cold}"));
    let message = format!("{name} is still loading after {} s{why}; it is left running", limit.as_secs());
    Failure::new(ExitCode::Starting, message).hint(format!("watch it: llama-orch logs -f {name}"))
}

/// The engine died while it loaded: told and written down. There is no daemon that would restart it.
fn died(node: &Node, instance: &LoadedInstance, pid: u32) -> Result<Failure, Failure> {
    let name = &instance.config.name;
    let path = node.home.exit_record(name, ReplicaId::FIRST);
    let report = CrashReport::of(&path, pid, EXIT_RECORD_WAIT);
    // A `down` that came in between has already written what happened.
    if node.store.desired(name)? != Some(DesiredState::Stopped) {
        recorder(node, instance).crash(&report, Status::Crashed)?;
    }
    Ok(Failure::new(ExitCode::StartFailed, format!("{name} did not start: {}", report.reason))
        .hint(format!("see its log: llama-orch logs {name}")))
}

fn recorder<'a>(node: &'a Node, instance: &'a LoadedInstance) -> Recorder<'a> {
    Recorder { store: &node.store, name: &instance.config.name, replica: ReplicaId::FIRST }
}
