//! From the task to a running keeper: locks, logs, process, answer.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::birth;
use super::charge::Charge;
use super::keeper::Keeper;
use super::log_keeper::{LogKeeper, Position};
use crate::denied::Records;
use crate::handoff::Handoff;
use crate::identity::{Ownership, ProcessIdentity};
use crate::leftovers::{kill_sharers, shim_lock};
use crate::locks::{LockGuard, LockHolder, is_held, read_text, running_engine};
use crate::protocol::{Reply, Request, Step};
use crate::spec::EngineSpec;
use crate::wait::wait_until;

/// A predecessor's shim may still be clearing up after its engine.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(10);
/// A shim that was just killed may take a moment to be gone.
const DYING_SHIM_LIMIT: Duration = Duration::from_millis(500);
const OPERATION: &str = "engine";

/// Does the task to its end. Returns the exit code of the shim.
pub(super) fn serve(request: Request) -> u8 {
    birth::enter(&request.spec().working_dir);
    let prepared = match request {
        Request::Launch(spec) => launch(spec),
        Request::Adopt { spec, identity } => adopt(spec, &identity),
    };
    match prepared {
        Ok((keeper, reply)) => {
            birth::answer(&reply);
            keeper.run();
            0
        }
        Err(reply) => {
            birth::answer(&reply);
            1
        }
    }
}

pub(super) fn failed(step: Step, error: &io::Error) -> Reply {
    Reply::Failed { step, kind: error.kind().into(), message: error.to_string() }
}

fn launch(spec: EngineSpec) -> Result<(Keeper, Reply), Reply> {
    let (shim_guard, engine_guard) = take_locks(&spec)?;
    let mut holder = LockHolder::myself(OPERATION);
    engine_guard.describe(&holder);
    shim_guard.describe(&holder);
    let logs = open_logs(&spec).map_err(|error| failed(Step::Logs, &error))?;
    let tell = |identity: &ProcessIdentity| {
        holder.engine = Some(Box::new(identity.clone()));
        engine_guard.describe(&holder);
    };
    let (stdout, stderr) = (&logs[0].1, &logs[logs.len() - 1].1);
    let engine = Charge::start(&spec, engine_guard.file(), (stdout, stderr), tell)
        .map_err(|error| failed(Step::Executable, &error))?;
    let reply = Reply::Started { identity: engine.identity().clone(), shim_pid: holder.pid };
    let logs = logs.into_iter().map(|(keeper, _)| keeper).collect();
    Ok((Keeper::new(spec, engine, Some(engine_guard), shim_guard, logs), reply))
}

fn adopt(spec: EngineSpec, identity: &ProcessIdentity) -> Result<(Keeper, Reply), Reply> {
    let records = Records { handoff: spec.handoff.clone(), engine_lock: spec.engine_lock.clone() };
    match identity.check_by(&records) {
        Ownership::Ours | Ownership::Vouched { .. } => {}
        Ownership::Gone => return Err(Reply::NotOurs { reason: "it has ended".to_owned() }),
        Ownership::Foreign { reason } | Ownership::Denied { reason } => {
            return Err(Reply::NotOurs { reason });
        }
    }
    let shim_lock = shim_lock(&spec.engine_lock);
    let mut shim_guard = Ok(None);
    wait_until(DYING_SHIM_LIMIT, || {
        shim_guard = try_lock(&shim_lock);
        !matches!(shim_guard, Ok(None))
    });
    let Some(shim_guard) = shim_guard? else {
        return Err(match read_text(&shim_lock) {
            Some(other) => Reply::Adopted { shim_pid: other.pid },
            None => Reply::NotOurs { reason: "another shim has it".to_owned() },
        });
    };
    let mut holder = LockHolder::myself(OPERATION);
    shim_guard.describe(&holder);
    holder.engine = Some(Box::new(identity.clone()));
    // The engine holds this lock itself; only the text is ours to renew.
    LockGuard::describe_held(&spec.engine_lock, &holder);
    take_over_handoff(&spec, identity, holder.pid);
    let logs = adopt_logs(&spec, identity.pid).map_err(|error| failed(Step::Logs, &error))?;
    let keeper = Keeper::new(spec, Charge::adopt(identity), None, shim_guard, logs);
    Ok((keeper, Reply::Adopted { shim_pid: holder.pid }))
}

/// The shim's lock first, then the engine's. Whatever is in the way and about to go is waited for; a living
/// engine is told at once.
fn take_locks(spec: &EngineSpec) -> Result<(LockGuard, LockGuard), Reply> {
    let shim_path = shim_lock(&spec.engine_lock);
    let (mut shim, mut engine) = (None, None);
    let mut outcome = Ok(());
    wait_until(PREDECESSOR_LIMIT, || {
        outcome = next_locks(spec, &shim_path, &mut shim, &mut engine);
        engine.is_some() || outcome.is_err()
    });
    outcome?;
    shim.zip(engine).ok_or_else(|| Reply::AlreadyRunning { holder: read_text(&spec.engine_lock) })
}

fn next_locks(
    spec: &EngineSpec,
    shim_path: &std::path::Path,
    shim: &mut Option<LockGuard>,
    engine: &mut Option<LockGuard>,
) -> Result<(), Reply> {
    if shim.is_none() {
        *shim = try_lock(shim_path)?;
    }
    if shim.is_some() {
        *engine = try_lock(&spec.engine_lock)?;
    }
    if engine.is_some() {
        return Ok(());
    }
    let holder = read_text(&spec.engine_lock);
    let living = holder.as_ref().and_then(|holder| holder.engine.as_ref()).map(|engine| engine.check());
    match living {
        Some(Ownership::Ours | Ownership::Vouched { .. } | Ownership::Denied { .. })
            if is_held(&spec.engine_lock) =>
        {
            Err(Reply::AlreadyRunning { holder })
        }
        // The engine is gone and no shim is there to clear up: what holds the lock are its leftovers.
        Some(Ownership::Gone | Ownership::Foreign { .. }) if shim.is_some() => {
            kill_sharers(&spec.engine_lock);
            Ok(())
        }
        // No text, no shim, but a lock: only the lock itself can lead to the engine.
        None if shim.is_some() => match running_engine(&spec.engine_lock) {
            Some(engine) => Err(Reply::AlreadyRunning { holder: Some(unwritten(engine.identity)) }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn unwritten(engine: ProcessIdentity) -> LockHolder {
    let engine = Some(Box::new(engine));
    LockHolder {
        pid: 0,
        operation: OPERATION.to_owned(),
        started_at: String::new(),
        start_mark: None,
        engine,
    }
}

fn try_lock(path: &std::path::Path) -> Result<Option<LockGuard>, Reply> {
    LockGuard::try_acquire(path).map_err(|error| failed(Step::Lock, &error))
}

type OpenLog = (LogKeeper, File);

/// Keepers, each with the file to be handed to the engine. Streams that share a path share the file.
fn open_logs(spec: &EngineSpec) -> io::Result<Vec<OpenLog>> {
    let mut logs = vec![open_log(spec, &spec.stdout_log)?];
    if spec.stderr_log != spec.stdout_log {
        logs.push(open_log(spec, &spec.stderr_log)?);
    }
    Ok(logs)
}

fn open_log(spec: &EngineSpec, path: &std::path::Path) -> io::Result<OpenLog> {
    let file = LogKeeper::open_for_engine(path)?;
    let keeper = LogKeeper::new(spec, path, Position::Shared(file.try_clone()?))?;
    Ok((keeper, file))
}

fn adopt_logs(spec: &EngineSpec, pid: u32) -> io::Result<Vec<LogKeeper>> {
    let mut logs = vec![LogKeeper::new(spec, &spec.stdout_log, Position::OfProcess { pid, descriptor: 1 })?];
    if spec.stderr_log != spec.stdout_log {
        logs.push(LogKeeper::new(spec, &spec.stderr_log, Position::OfProcess { pid, descriptor: 2 })?);
    }
    Ok(logs)
}

fn take_over_handoff(spec: &EngineSpec, identity: &ProcessIdentity, shim_pid: u32) {
    let Ok(mut handoff) = Handoff::read(&spec.handoff) else { return };
    if handoff.pid == identity.pid && handoff.process_started_at == identity.started_at {
        handoff.shim_pid = shim_pid;
        let _ = handoff.write(&spec.handoff);
    }
}
