//! From the task to a running keeper: locks, logs, process, answer.
#![expect(unsafe_code, reason = "code between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::birth;
use super::keeper::{Keeper, Parenthood};
use super::log_keeper::{LogKeeper, Position};
use crate::handoff::Handoff;
use crate::identity::{Ownership, ProcessIdentity};
use crate::leftovers::{kill_sharers, shim_lock};
use crate::locks::{LockGuard, LockHolder, is_held, read_text, running_engine};
use crate::protocol::{Reply, Request, Step};
use crate::spec::EngineSpec;
use crate::sys::{mark_of_child, own_group};
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
        Request::Adopt { spec, identity } => adopt(spec, identity),
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
    let identity = spawn(&spec, &engine_guard, &logs).map_err(|error| failed(Step::Executable, &error))?;
    holder.engine = Some(Box::new(identity.clone()));
    engine_guard.describe(&holder);
    let reply = Reply::Started { identity: identity.clone(), shim_pid: holder.pid };
    let parenthood = Parenthood::Parent { _engine_lock: engine_guard };
    let logs = logs.into_iter().map(|(keeper, _)| keeper).collect();
    Ok((Keeper::new(spec, identity, parenthood, shim_guard, logs), reply))
}

fn adopt(spec: EngineSpec, identity: ProcessIdentity) -> Result<(Keeper, Reply), Reply> {
    match identity.check() {
        Ownership::Ours => {}
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
    take_over_handoff(&spec, &identity, holder.pid);
    let logs = adopt_logs(&spec, identity.pid).map_err(|error| failed(Step::Logs, &error))?;
    let keeper = Keeper::new(spec, identity, Parenthood::Adopter, shim_guard, logs);
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
        Some(Ownership::Ours | Ownership::Denied { .. }) if is_held(&spec.engine_lock) => {
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

/// The engine in a group of its own, with exactly the environment and the descriptors it is given.
fn spawn(spec: &EngineSpec, lock: &LockGuard, logs: &[OpenLog]) -> io::Result<ProcessIdentity> {
    let file = |(_, file): &OpenLog| file.try_clone();
    let (stdout, stderr) = (logs.first().map(file), logs.last().map(file));
    let mut command = Command::new(&spec.executable);
    command.args(&spec.args).env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(&spec.working_dir).stdin(Stdio::null());
    command.stdout(stdout.transpose()?.map_or_else(Stdio::null, Stdio::from));
    command.stderr(stderr.transpose()?.map_or_else(Stdio::null, Stdio::from));
    own_group(&mut command);
    let lock = lock.file().as_raw_fd();
    // SAFETY: only async-signal-safe calls, no allocation.
    unsafe {
        command.pre_exec(move || birth::prepare_engine(lock));
    }
    let pid = command.spawn()?.id();
    // Not reaped yet, so it has a mark even if it has ended already.
    let unknown = || io::Error::other("the engine's start time cannot be read");
    let started_at = mark_of_child(pid).ok_or_else(unknown)?;
    Ok(ProcessIdentity { pid, started_at, executable: spec.executable.clone(), port: spec.port })
}

fn take_over_handoff(spec: &EngineSpec, identity: &ProcessIdentity, shim_pid: u32) {
    let Ok(mut handoff) = Handoff::read(&spec.handoff) else { return };
    if handoff.pid == identity.pid && handoff.process_started_at == identity.started_at {
        handoff.shim_pid = shim_pid;
        let _ = handoff.write(&spec.handoff);
    }
}
