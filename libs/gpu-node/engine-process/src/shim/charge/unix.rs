//! Linux and macOS: the engine leads a process group, and its shim is told its exit code as its parent.
#![expect(unsafe_code, reason = "code between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::birth;
use crate::identity::{ProcessIdentity, start_mark};
use crate::leftovers::{kill_sharers, open_all};
use crate::spec::EngineSpec;
use crate::sys::{self, End, ProcessHandle, mark_of_child, process_table};
use crate::wait::{pause, wait_until};

/// Killing a family takes as many rounds as it has generations; the limit is for processes that a driver holds.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_millis(5);
/// Shortest pause while no handle of the engine can be had.
const WITHOUT_HANDLE: Duration = Duration::from_millis(50);

/// The engine that a shim looks after.
pub(in crate::shim) struct Charge {
    identity: ProcessIdentity,
    handle: Option<ProcessHandle>,
    /// The kernel tells its parent the exit code, and nobody else.
    is_parent: bool,
}

impl Charge {
    /// The engine in a group of its own, with exactly the environment and the descriptors it is given.
    pub(in crate::shim) fn start(
        spec: &EngineSpec,
        lock: &File,
        (stdout, stderr): (&File, &File),
        tell: impl FnOnce(&ProcessIdentity),
    ) -> io::Result<Self> {
        let mut command = Command::new(&spec.executable);
        command.args(&spec.args).env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&spec.working_dir).stdin(Stdio::null());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let lock = lock.as_raw_fd();
        // SAFETY: only async-signal-safe calls, no allocation.
        unsafe {
            command.pre_exec(move || birth::prepare_engine(lock));
        }
        let pid = command.spawn()?.id();
        // Not reaped yet, so it has a mark even if it has ended already.
        let unknown = || io::Error::other("the engine's start time cannot be read");
        let started_at = mark_of_child(pid).ok_or_else(unknown)?;
        let identity =
            ProcessIdentity { pid, started_at, executable: spec.executable.clone(), port: spec.port };
        tell(&identity);
        Ok(Self { handle: None, is_parent: true, identity })
    }

    pub(in crate::shim) fn adopt(identity: &ProcessIdentity) -> Self {
        Self { identity: identity.clone(), handle: None, is_parent: false }
    }

    pub(in crate::shim) fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Whether it ended within the limit. Without a handle (out of descriptors) the process table is looked at.
    pub(in crate::shim) fn wait(&mut self, limit: Duration) -> bool {
        if self.handle.is_none() {
            self.handle = ProcessHandle::open(self.identity.pid).ok().flatten();
        }
        match &self.handle {
            Some(handle) => handle.wait(limit),
            None => wait_until(limit.max(WITHOUT_HANDLE), || {
                start_mark(self.identity.pid).as_ref() != Some(&self.identity.started_at)
            }),
        }
    }

    /// Helpers of the engine that lost their parent come to the shim; the engine itself is reaped last, when
    /// nobody needs its pid any more.
    pub(in crate::shim) fn clear_away_orphans(&self) {
        sys::reap_all_but(self.identity.pid);
    }

    /// How it ended, which it has.
    pub(in crate::shim) fn end(&self) -> End {
        if self.is_parent { sys::end_of_child(self.identity.pid) } else { End::Unknown }
    }

    /// Ends what it left running.
    pub(in crate::shim) fn kill_rest(&self, engine_lock: &Path) {
        if self.is_parent {
            kill_children(self.identity.pid);
        } else {
            kill_known(self.identity.pid, engine_lock);
        }
    }
}

/// Kills and reaps all that descends from the engine. Only unreaped children of this very process are
/// signalled, so no pid can have become somebody else's; grandchildren become children when their parent ends.
fn kill_children(engine: u32) {
    if let Ok(raw) = i32::try_from(engine) {
        let _ = killpg(Pid::from_raw(raw), Signal::SIGKILL);
    }
    let end = Instant::now() + KILL_LIMIT;
    while reap_all() == Children::Left && Instant::now() < end {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        pause(ROUND);
    }
}

fn children() -> Vec<Pid> {
    let me = std::process::id();
    let table = process_table();
    let mine = table.iter().filter(|entry| entry.parent == me && !entry.zombie);
    mine.filter_map(|entry| i32::try_from(entry.pid).ok().map(Pid::from_raw)).collect()
}

#[derive(PartialEq, Eq)]
enum Children {
    None,
    Left,
}

fn reap_all() -> Children {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Children::Left,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Children::None,
        }
    }
}

/// For an adopted engine: kills what is known to be its own, the rest of its process group and whatever shares
/// its lock.
fn kill_known(engine: u32, engine_lock: &Path) {
    let table = process_table();
    // A living leader with this number is a newcomer, and so is its group.
    let reused = table.iter().any(|entry| entry.pid == engine && !entry.zombie);
    if !reused {
        let members: Vec<_> = table.into_iter().filter(|entry| entry.group == engine).collect();
        let members = open_all(&members);
        for member in &members {
            let _ = member.signal(sys::Signal::Kill);
        }
        wait_until(KILL_LIMIT, || members.iter().all(|member| member.wait(Duration::ZERO)));
    }
    kill_sharers(engine_lock);
}
