//! The node plane without a daemon: one command, one step, carried out by the command itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use instance_config::LoadedInstance;
use orch_core::{DesiredState, ExitCode, Failure, InstanceName, ReplicaId, Status, UnixMillis};

use crate::actual::{Actual, observe};
use crate::crash::CrashReport;
use crate::engine::Engine;
use crate::instance_lock::InstanceLock;
use crate::lifecycle::ProbeOutcome;
use crate::node::Node;
use crate::operate::{self, LaunchCause, Launched, Terminated};
use crate::policy::desired_after_up;
use crate::pool::together;
use crate::record::Recorder;
use crate::traces::Traces;

/// Time between two looks at a loading engine.
const PROBE_PACE: Duration = Duration::from_millis(50);
/// Where a port is waited for when no config tells.
const LOOPBACK: &str = "127.0.0.1";
/// The shim needs a moment to write down how its engine ended.
const EXIT_RECORD_WAIT: Duration = Duration::from_secs(2);

/// Starts an instance with all its replicas, and ends those that it has too many. Returns the warnings that the user
/// should see.
pub async fn up(
    node: &Node,
    instance: &LoadedInstance,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let lock = InstanceLock::acquire(node, &instance.config.name, "up")?;
    let replicas = wanted(node, instance)?;
    let surplus = known(node, &instance.config.name)?.into_iter().filter(|it| !replicas.contains(it));
    retire(node, &lock, instance, &surplus.collect())?;
    start(node, lock, instance, &replicas, wait).await
}

/// Stops and starts an instance under one lock; starts a stopped one.
pub async fn restart(
    node: &Node,
    instance: &LoadedInstance,
    force: bool,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let (name, host) = (&instance.config.name, &instance.config.server.host);
    let lock = InstanceLock::acquire(node, name, "restart")?;
    let replicas = wanted(node, instance)?;
    let known = known(node, name)?;
    for (replica, found) in terminate_all(node, &lock, name, host, &known, force) {
        if found? == Terminated::Stopped {
            recorder(node, name, replica).stopped()?;
        }
    }
    for surplus in known.iter().filter(|replica| !replicas.contains(replica)) {
        node.store.forget_replica(name, *surplus)?;
    }
    start(node, lock, instance, &replicas, wait).await
}

/// Stops an instance with all its replicas; it stays down.
pub fn down(node: &Node, instance: &LoadedInstance, force: bool) -> Result<(), Failure> {
    let name = &instance.config.name;
    let lock = InstanceLock::acquire(node, name, "down")?;
    let was_wanted = node.store.desired(name)?.is_some_and(|desired| desired != DesiredState::Stopped);
    // The wish first: whatever becomes of the stop, it stands.
    operate::remember_desired(node, instance, DesiredState::Stopped)?;
    match stop_all(node, &lock, name, &instance.config.server.host, force, true) {
        Err(failure) if failure.exit == ExitCode::NotRunning && was_wanted => Ok(()),
        result => result,
    }
}

/// Stops engines whose config is gone or cannot be read: name, database, handoff files and locks are enough.
pub fn down_by_name(node: &Node, name: &InstanceName, force: bool) -> Result<(), Failure> {
    let lock = InstanceLock::acquire(node, name, "down")?;
    let known = node.store.instance(name)?.is_some();
    if known {
        node.store.set_desired(name, DesiredState::Stopped, UnixMillis::now())?;
    }
    stop_all(node, &lock, name, LOOPBACK, force, known)
}

/// `recorded`: whether the database knows the instance and is to be told.
fn stop_all(
    node: &Node,
    lock: &InstanceLock,
    name: &InstanceName,
    host: &str,
    force: bool,
    recorded: bool,
) -> Result<(), Failure> {
    let mut results = Vec::new();
    for (replica, found) in terminate_all(node, lock, name, host, &known(node, name)?, force) {
        if recorded && found.is_ok() {
            recorder(node, name, replica).stopped()?;
        }
        results.push((replica, found.and_then(|found| stopped_something(name, replica, found))));
    }
    together(name, ExitCode::NotRunning, results)
}

fn stopped_something(name: &InstanceName, replica: ReplicaId, found: Terminated) -> Result<(), Failure> {
    match found {
        Terminated::Stopped => Ok(()),
        Terminated::NothingThere => {
            let name = replica.display_name(name);
            Err(Failure::new(ExitCode::NotRunning, format!("{name} is not running")))
        }
    }
}

/// All at once: an engine that does not heed a polite stop takes seconds.
fn terminate_all(
    node: &Node,
    lock: &InstanceLock,
    name: &InstanceName,
    host: &str,
    replicas: &BTreeSet<ReplicaId>,
    force: bool,
) -> Vec<(ReplicaId, Result<Terminated, Failure>)> {
    let cut = || Failure::new(ExitCode::StopFailed, format!("stopping {name} was cut short"));
    std::thread::scope(|scope| {
        let stops: Vec<_> = replicas
            .iter()
            .map(|&replica| {
                (replica, scope.spawn(move || operate::terminate(node, lock, name, host, replica, force)))
            })
            .collect();
        stops
            .into_iter()
            .map(|(replica, stop)| (replica, stop.join().unwrap_or_else(|_| Err(cut()))))
            .collect()
    })
}

/// Ends replicas that an instance no longer has. What is wanted of the instance stays as it is.
fn retire(
    node: &Node,
    lock: &InstanceLock,
    instance: &LoadedInstance,
    surplus: &BTreeSet<ReplicaId>,
) -> Result<(), Failure> {
    let (name, host) = (&instance.config.name, &instance.config.server.host);
    for (replica, found) in terminate_all(node, lock, name, host, surplus, false) {
        found?;
        recorder(node, name, replica).stopped()?;
        node.store.forget_replica(name, replica)?;
    }
    Ok(())
}

/// The replicas that a config asks for.
fn wanted(node: &Node, instance: &LoadedInstance) -> Result<BTreeSet<ReplicaId>, Failure> {
    let config = &instance.config;
    let count = match config.fixed_replicas() {
        Some(count) => count,
        None => config.replica_count(&node.engines.resolve(config)?)?,
    };
    Ok((0..count).map(ReplicaId).collect())
}

/// The replicas that may live, the first in any case.
fn known(node: &Node, name: &InstanceName) -> Result<BTreeSet<ReplicaId>, Failure> {
    let traces = Traces::look(&node.home, Some(&node.store))?;
    Ok(traces.of(name).chain([ReplicaId::FIRST]).collect())
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
    let mut living = BTreeSet::new();
    for replica in known(node, name)? {
        let row = node.store.runtime(name, replica)?;
        if let Actual::Ours(_) = observe(&node.home, row.as_ref(), name, replica) {
            living.insert(replica);
        }
    }
    if !living.is_empty() && !force {
        return Err(crate::removal::still_running(name));
    }
    for (_, ended) in terminate_all(node, &lock, name, host, &living, true) {
        ended?;
    }
    crate::removal::remove(node, &lock, name, config, keep_logs)
}

async fn start(
    node: &Node,
    lock: InstanceLock,
    instance: &LoadedInstance,
    replicas: &BTreeSet<ReplicaId>,
    wait: Option<Duration>,
) -> Result<Vec<String>, Failure> {
    let mut launches = Vec::new();
    for &replica in replicas {
        let launched = launch(node, &lock, instance, replica);
        let refused = launched.as_ref().is_err_and(|failure| !is_on_its_way(failure));
        launches.push((replica, launched));
        if refused {
            // What stops one stops the others, and is told once.
            break;
        }
    }
    // From here on shims and engines hold their own locks; others may look, wait or stop.
    drop(lock);
    let launched = launches.iter().filter_map(|(_, launched)| launched.as_ref().ok());
    let mut warnings: Vec<String> = launched.flat_map(|launched| launched.plan.warnings.clone()).collect();
    warnings.sort();
    warnings.dedup();
    let waits = launches.into_iter().map(|(replica, launched)| async move {
        let ready = match (launched, wait) {
            (Ok(launched), Some(limit)) => await_ready(node, instance, replica, launched, limit).await,
            (launched, _) => launched.map(|_| ()),
        };
        (replica, ready)
    });
    together(&instance.config.name, ExitCode::AlreadyRunning, join_all(waits).await).map(|()| warnings)
}

fn launch(
    node: &Node,
    lock: &InstanceLock,
    instance: &LoadedInstance,
    replica: ReplicaId,
) -> Result<Launched, Failure> {
    let own = instance.of_replica(replica);
    let cause = LaunchCause::User { desired: desired_after_up(&own.config) };
    let launched = operate::launch(node, lock, &own, replica, cause);
    if let Err(failure) = &launched
        && !is_on_its_way(failure)
    {
        recorder(node, &own.config.name, replica).start_failed(failure, None)?;
    }
    launched
}

/// Refused because it lives already.
fn is_on_its_way(failure: &Failure) -> bool {
    matches!(failure.exit, ExitCode::AlreadyRunning | ExitCode::Starting | ExitCode::Stopping)
}

/// Waits until the engine is ready, is gone, makes no progress, or the limit has passed.
async fn await_ready(
    node: &Node,
    instance: &LoadedInstance,
    replica: ReplicaId,
    launched: Launched,
    limit: Duration,
) -> Result<(), Failure> {
    let config = &instance.config;
    let recorder = recorder(node, &config.name, replica);
    let handle = launched.handle;
    let (pid, mark) = (handle.identity.pid, handle.identity.started_at.clone());
    let mut engine = Engine::new(&node.home, config, replica, handle.identity, Some(handle.shim_pid));
    let begun = Instant::now();
    let mut last_progress = begun;
    let mut cold = None;
    let exit = engine_process::wait_for_exit(pid, &mark);
    tokio::pin!(exit);
    loop {
        let examination = tokio::select! {
            () = &mut exit => return Err(died(node, instance, replica, pid)?),
            examination = engine.clone().examine() => examination,
            () = tokio::time::sleep(limit.saturating_sub(begun.elapsed())) => {
                return Err(still_loading(instance, replica, limit, cold.as_deref()));
            }
        };
        engine.progress = examination.progress;
        if let Some(reason) = examination.cold.filter(|reason| cold.as_ref() != Some(reason)) {
            recorder.cold(&reason)?;
            cold = Some(reason);
        }
        match examination.report.outcome {
            ProbeOutcome::Healthy => return Ok(recorder.ready()?),
            ProbeOutcome::Loading { progressed: true } => last_progress = Instant::now(),
            ProbeOutcome::Loading { progressed: false } | ProbeOutcome::Failed { .. } => {}
        }
        if last_progress.elapsed() >= config.healthcheck.load_stall {
            let lock = InstanceLock::acquire(node, &config.name, "up")?;
            let (name, host) = (&config.name, &config.server.host);
            operate::terminate(node, &lock, name, host, replica, false)?;
            let why = cold.map_or(String::new(), |cold| format!(": {cold}"));
            let message = format!("loading {} made no progress{why}", replica.display_name(&config.name));
            let failure = Failure::new(ExitCode::StartFailed, message);
            recorder.start_failed(&failure, None)?;
            return Err(failure);
        }
        tokio::time::sleep(PROBE_PACE).await;
    }
}

fn still_loading(
    instance: &LoadedInstance,
    replica: ReplicaId,
    limit: Duration,
    cold: Option<&str>,
) -> Failure {
    let (name, label) = (&instance.config.name, replica.display_name(&instance.config.name));
    let why = cold.map_or(String::new(), |cold| format!(": {cold}"));
    let message = format!("{label} is still loading after {} s{why}; it is left running", limit.as_secs());
    Failure::new(ExitCode::Starting, message).hint(format!("watch it: llama-orch logs -f {name}"))
}

/// The engine died while it loaded: told and written down. There is no daemon that would restart it.
fn died(node: &Node, instance: &LoadedInstance, replica: ReplicaId, pid: u32) -> Result<Failure, Failure> {
    let name = &instance.config.name;
    let report = CrashReport::of(&node.home.exit_record(name, replica), pid, EXIT_RECORD_WAIT);
    // A `down` that came in between has already written what happened.
    if node.store.desired(name)? != Some(DesiredState::Stopped) {
        recorder(node, name, replica).crash(&report, Status::Crashed)?;
    }
    let label = replica.display_name(name);
    let of_replica =
        if replica == ReplicaId::FIRST { String::new() } else { format!(" --replica {}", replica.0) };
    Ok(Failure::new(ExitCode::StartFailed, format!("{label} did not start: {}", report.reason))
        .hint(format!("see its log: llama-orch logs {name}{of_replica}")))
}

fn recorder<'a>(node: &'a Node, name: &'a InstanceName, replica: ReplicaId) -> Recorder<'a> {
    Recorder { store: &node.store, name, replica }
}
