//! The tools that run now, so that a program that is interrupted leaves none behind.
//!
//! A tool leads a process group of its own, with whatever it starts, which Ctrl-C in a terminal does not reach. Only
//! the process as a whole has children and is interrupted, so this list is one for all of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Process groups of running tools; `None` from the moment on at which no tool may run any more.
static RUNNING: Mutex<Option<Vec<u32>>> = Mutex::new(Some(Vec::new()));

/// One tool, as long as it may be signalled.
pub(crate) struct Running {
    group: u32,
}

impl Running {
    /// To be dropped before the tool is reaped: from then on its number may be somebody else's.
    pub(crate) fn enter(group: u32) -> Self {
        match &mut *list() {
            Some(groups) => groups.push(group),
            None => end(group),
        }
        Self { group }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(groups) = &mut *list() {
            groups.retain(|group| *group != self.group);
        }
    }
}

/// Ends every tool that runs, with all that it started, and every one that is started from now on: for a program that
/// is about to end.
pub fn end_running_tools() {
    for group in list().take().unwrap_or_default() {
        end(group);
    }
}

fn list() -> MutexGuard<'static, Option<Vec<u32>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn end(group: u32) {
    use nix::sys::signal::{Signal, killpg};
    let Ok(group) = i32::try_from(group) else { return };
    // One that has ended by itself is as good.
    let _ = killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL);
}

/// A tool's job ends with the handle that this process has of it.
#[cfg(windows)]
fn end(_: u32) {}
