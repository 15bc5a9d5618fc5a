//! Stopping an engine: politely, then plainly, then by force, and then making sure that it is all gone.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use orch_core::{ExitCode, Failure};

use crate::denied::Records;
use crate::handoff::Handoff;
use crate::identity::{Ownership, ProcessIdentity, start_mark};
use crate::leftovers::{clear_leftovers, open_all, relatives};
use crate::ports;
use crate::protocol::SHIM_WORD;
use crate::sys::{ProcessHandle, Signal, args_of, inherited_lock, process_entry};
use crate::wait::wait_until;

/// A killed process ends at once, unless a driver holds it; then nobody can do more than wait.
const KILL_LIMIT: Duration = Duration::from_secs(5);
const SHIM_LIMIT: Duration = Duration::from_secs(5);
const PORT_LIMIT: Duration = Duration::from_secs(2);

/// The engine to stop, as remembered.
#[derive(Clone, Debug)]
pub struct StopTarget {
    pub identity: ProcessIdentity,
    pub shim_pid: Option<u32>,
    pub records: Records,
    pub host: String,
}

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// After the first request to end. The engine waits for connected clients now.
    pub first_grace: Duration,
    /// After the second, which the engine obeys at once.
    pub second_grace: Duration,
    /// Kill without asking.
    pub force: bool,
}

impl Default for StopPlan {
    fn default() -> Self {
        Self { first_grace: Duration::from_secs(3), second_grace: Duration::from_secs(1), force: false }
    }
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// There was no process any more.
    pub already_gone: bool,
    /// It had to be killed (asked for or not).
    pub killed: bool,
    /// Nobody listens on its port now.
    pub port_free: bool,
    pub took: Duration,
}

/// Why nothing was stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("pid {pid} is not our engine: {reason}; nothing was signalled")]
    NotOurs { pid: u32, reason: String },
    #[error("pid {pid} cannot be checked: {reason}; nothing was signalled")]
    Denied { pid: u32, reason: String },
    #[error("cannot signal pid {pid}")]
    Signal { pid: u32, source: io::Error },
    #[error("pid {pid} is still there after it was killed")]
    StillAlive { pid: u32 },
}

const AS_ITS_USER: &str = "stop it as the user that it runs as, or as an administrator (root)";

impl From<StopError> for Failure {
    fn from(error: StopError) -> Self {
        let (exit, hint) = match &error {
            StopError::NotOurs { .. } => (ExitCode::ProcessNotFound, None),
            StopError::Denied { .. } => (ExitCode::PermissionDenied, Some(AS_ITS_USER)),
            StopError::Signal { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (ExitCode::PermissionDenied, Some(AS_ITS_USER))
            }
            StopError::Signal { .. } | StopError::StillAlive { .. } => (ExitCode::StopFailed, None),
        };
        let message = match &error {
            StopError::Signal { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        let failure = Failure::new(exit, message);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Stops an engine with all that it started and waits until it, its shim and its port are gone. Blocking.
/// A process that is not ours is never signalled.
pub fn stop(target: &StopTarget, plan: &StopPlan) -> Result<StopReport, StopError> {
    let begun = Instant::now();
    let pid = target.identity.pid;
    let open = ProcessHandle::open(pid).map_err(|source| StopError::Signal { pid, source })?;
    // Checked after opening: the handle keeps meaning the process that was checked.
    let engine = match (open, target.identity.check_by(&target.records)) {
        (Some(engine), Ownership::Ours) => engine,
        // No signal to a process that may have got its pid later.
        (Some(engine), Ownership::Vouched { reason }) => match start_mark(pid) {
            Some(mark) if mark == target.identity.started_at => engine,
            _ => return Err(StopError::Denied { pid, reason }),
        },
        (None, _) | (_, Ownership::Gone) => return Ok(already_gone(target, begun)),
        (_, Ownership::Foreign { reason }) => return Err(StopError::NotOurs { pid, reason }),
        (_, Ownership::Denied { reason }) => return Err(StopError::Denied { pid, reason }),
    };
    let shim = target.shim_pid.and_then(open_shim);
    let lock = inherited_lock(pid);
    let shim_cleans_up = shim.is_some() && process_entry(pid).map(|entry| entry.parent) == target.shim_pid;
    let mut family = if shim_cleans_up { Vec::new() } else { family_of(&engine, lock.as_deref()) };
    let polite = !plan.force && ask_to_end(&engine, plan)?;
    if !polite {
        family.extend(family_of(&engine, lock.as_deref()));
        kill(&engine)?;
    }
    clear_after(target, shim.as_ref(), &family, lock.as_deref());
    Ok(report(target, begun, false, !polite))
}

fn already_gone(target: &StopTarget, begun: Instant) -> StopReport {
    let shim = target.shim_pid.and_then(open_shim);
    clear_after(target, shim.as_ref(), &[], None);
    report(target, begun, true, false)
}

/// The shim is only waited for. A pid that means something else by now is not.
fn open_shim(pid: u32) -> Option<ProcessHandle> {
    let handle = ProcessHandle::open(pid).ok().flatten()?;
    is_shim(pid).then_some(handle)
}

pub(crate) fn is_shim(pid: u32) -> bool {
    args_of(pid).get(1).is_some_and(|word| word == SHIM_WORD)
}

/// Asks twice. `true` when the engine has ended by itself.
fn ask_to_end(engine: &ProcessHandle, plan: &StopPlan) -> Result<bool, StopError> {
    for grace in [plan.first_grace, plan.second_grace] {
        match signal(engine, Signal::Terminate) {
            Ok(()) if engine.wait(grace) => return Ok(true),
            Ok(()) => {}
            // Where only the shim can pass the request on, and there is none.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(false),
            Err(source) => return Err(StopError::Signal { pid: engine.pid(), source }),
        }
    }
    Ok(false)
}

/// Engines of ours lead a group of their own. One that the older tool started may share the group of whoever started it,
/// and is signalled alone. Systems without groups tell none.
fn signal(engine: &ProcessHandle, signal: Signal) -> io::Result<()> {
    let group = process_entry(engine.pid()).map_or(0, |entry| entry.group);
    if group == engine.pid() || group == 0 { engine.signal_group(signal) } else { engine.signal(signal) }
}

/// All that the engine started. Looked up while it lives: afterwards nobody knows whose orphans they are.
fn family_of(engine: &ProcessHandle, lock: Option<&Path>) -> Vec<ProcessHandle> {
    let mut entries = relatives(engine.pid(), lock);
    entries.retain(|entry| !is_shim(entry.pid));
    open_all(&entries)
}

fn kill(engine: &ProcessHandle) -> Result<(), StopError> {
    let pid = engine.pid();
    signal(engine, Signal::Kill).map_err(|source| StopError::Signal { pid, source })?;
    if engine.wait(KILL_LIMIT) { Ok(()) } else { Err(StopError::StillAlive { pid }) }
}

/// Waits for the shim to clean up, and does itself what no shim lived to do.
fn clear_after(
    target: &StopTarget,
    shim: Option<&ProcessHandle>,
    family: &[ProcessHandle],
    lock: Option<&Path>,
) {
    for process in family {
        let _ = process.signal(Signal::Kill);
    }
    wait_until(KILL_LIMIT, || family.iter().all(|process| process.wait(Duration::ZERO)));
    if let Some(shim) = shim {
        shim.wait(SHIM_LIMIT);
    }
    if let Some(lock) = lock {
        clear_leftovers(lock);
    }
    Handoff::remove_of(&target.records.handoff, target.identity.pid, &target.identity.started_at);
}

fn report(target: &StopTarget, begun: Instant, already_gone: bool, killed: bool) -> StopReport {
    let port_free = wait_until(PORT_LIMIT, || ports::is_free(&target.host, target.identity.port));
    StopReport { already_gone, killed, port_free, took: begun.elapsed() }
}
