//! Systems without `/proc` and pid file descriptors: the process list of the `sysinfo` crate, and polling.
//!
//! What only Linux tells (who shares a lock, memory kills, file positions) is answered with "not known" here;
//! every caller has a way to go on without it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::ByteCount;
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::{ProcessEntry, Signal};
use crate::identity::{ProcessSight, ProcessUsage, Sight, StartMark};
use crate::wait::wait_until;

fn look<T>(pid: u32, what: ProcessRefreshKind, see: impl FnOnce(&Process) -> T) -> Option<T> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    system.process(pid).map(see)
}

fn is_zombie(process: &Process) -> bool {
    matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead)
}

/// The system keeps start times in the clock's seconds, but as noted at the start: later steps do not change
/// them.
fn mark_of(process: &Process) -> StartMark {
    StartMark(format!("{}:{}", System::boot_time().unwrap_or(0), process.start_time()))
}

pub(crate) fn sight(pid: u32) -> Sight {
    let what = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always).with_cmd(UpdateKind::Always);
    let seen = look(pid, what, |process| {
        if is_zombie(process) {
            return Sight::Gone;
        }
        let args = process.cmd().iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let executable = process.exe().map(Path::to_owned);
        Sight::Seen(ProcessSight { started_at: mark_of(process), executable, args })
    });
    seen.unwrap_or(Sight::Gone)
}

/// No file system here can do that.
#[cfg(unix)]
pub(crate) fn take_out_head(_file: &std::fs::File, _bytes: u64) -> bool {
    false
}

/// The command line; empty where it cannot be seen.
pub(crate) fn args_of(pid: u32) -> Vec<String> {
    match sight(pid) {
        Sight::Seen(process) => process.args,
        Sight::Gone | Sight::Denied(_) => Vec::new(),
    }
}

pub(crate) fn start_mark(pid: u32) -> Option<StartMark> {
    let seen =
        look(pid, ProcessRefreshKind::nothing(), |process| (!is_zombie(process)).then(|| mark_of(process)));
    seen.flatten()
}

/// The start mark of our own child, also when it has ended and waits to be reaped.
#[cfg(unix)]
pub(crate) fn mark_of_child(pid: u32) -> Option<StartMark> {
    look(pid, ProcessRefreshKind::nothing(), mark_of)
}

fn entry_of(process: &Process) -> ProcessEntry {
    ProcessEntry {
        pid: process.pid().as_u32(),
        parent: process.parent().map_or(0, Pid::as_u32),
        group: group_of(process.pid().as_u32()),
        started: process.start_time(),
        zombie: is_zombie(process),
    }
}

#[cfg(unix)]
fn group_of(pid: u32) -> u32 {
    let raw = i32::try_from(pid).unwrap_or(0);
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(raw)));
    group.ok().and_then(|group| u32::try_from(group.as_raw()).ok()).unwrap_or(0)
}

#[cfg(not(unix))]
fn group_of(_pid: u32) -> u32 {
    0
}

/// The table's row for one pid, zombies included.
pub(crate) fn process_entry(pid: u32) -> Option<ProcessEntry> {
    look(pid, ProcessRefreshKind::nothing(), entry_of)
}

/// Every process that can be seen.
pub(crate) fn process_table() -> Vec<ProcessEntry> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing());
    system.processes().values().map(entry_of).collect()
}

pub(crate) fn usage(pid: u32) -> Option<ProcessUsage> {
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
    look(pid, what, |process| ProcessUsage {
        resident: ByteCount(process.memory()),
        processor_time: Duration::from_millis(process.accumulated_cpu_time()),
    })
}

pub(crate) fn bytes_read(pid: u32) -> Option<u64> {
    let what = ProcessRefreshKind::nothing().with_disk_usage();
    look(pid, what, |process| process.disk_usage().total_read_bytes)
}

pub(crate) fn host_memory() -> Option<crate::HostMemory> {
    let what = sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    let system = sysinfo::System::new_with_specifics(what).ok()?;
    let (total, available) = (ByteCount(system.total_memory()), ByteCount(system.available_memory()));
    (total.0 > 0).then_some(crate::HostMemory { total, available })
}

/// Not counted by this system.
#[cfg(unix)]
pub(crate) fn memory_kills() -> Option<u64> {
    None
}

/// Left to the system.
#[cfg(unix)]
pub(crate) fn forget_code() {}

/// Not told by this system.
#[cfg(unix)]
pub(crate) fn file_position(_pid: u32, _descriptor: u32) -> Option<u64> {
    None
}

/// Not told by this system.
pub(crate) fn lock_sharers(_path: &Path) -> Vec<ProcessEntry> {
    Vec::new()
}

/// Not told by this system.
pub(crate) fn inherited_lock(_pid: u32) -> Option<PathBuf> {
    None
}

/// A process known by pid and start time, looked at again before every signal.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    pid: u32,
    started: u64,
}

impl ProcessHandle {
    /// `None` when there is no such process.
    #[expect(clippy::unnecessary_wraps, reason = "opening a handle can fail where the system has real ones")]
    pub(crate) fn open(pid: u32) -> io::Result<Option<Self>> {
        Ok(process_entry(pid).map(|entry| Self { pid, started: entry.started }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn is_same(&self) -> bool {
        process_entry(self.pid).is_some_and(|entry| entry.started == self.started)
    }

    /// Whether the process ended within the limit. A zombie has ended.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let ended = || process_entry(self.pid).is_none_or(|now| now.started != self.started || now.zombie);
        wait_until(limit, ended)
    }

    /// Signals this process and no other. One that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.is_same() { super::native_signal(self.pid, signal) } else { Ok(()) }
    }

    /// Signals the group this process leads.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if self.is_same() { super::native_signal_group(self.pid, signal) } else { Ok(()) }
    }
}
