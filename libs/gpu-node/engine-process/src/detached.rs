//! Daemons: started so that they outlive the terminal, ended so that no stranger is hit.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::{ExitCode, Failure};

use crate::identity::{StartMark, start_mark};
use crate::private_files;
use crate::sys::{self, ProcessHandle, Signal};

const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A background process to start.
#[derive(Clone, Debug, Default)]
pub struct DetachedCommand {
    pub executable: PathBuf,
    pub args: Vec<OsString>,
    /// Set on top of this process's environment.
    pub env: Vec<(OsString, OsString)>,
    pub env_remove: Vec<OsString>,
    pub working_dir: Option<PathBuf>,
}

/// Starts a process without a terminal and without input, its output appended to a log file. Returns its pid.
pub fn spawn_detached(command: &DetachedCommand, log_file: &Path) -> io::Result<u32> {
    private_files::create_parent(log_file)?;
    let log = private_files::options().create(true).append(true).open(log_file)?;
    sys::spawn_detached(command, &log)
}

/// Whether this program was started to go on when its terminal is closed.
#[cfg(unix)]
pub fn outlives_terminal() -> bool {
    sys::outlives_terminal()
}

/// Nobody outlives the window of a console here.
#[cfg(windows)]
pub const fn outlives_terminal() -> bool {
    false
}

/// Why a daemon was not ended.
#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    #[error("cannot signal pid {pid}")]
    Signal { pid: u32, source: io::Error },
    #[error("pid {pid} is still there after it was killed")]
    StillAlive { pid: u32 },
}

impl From<TerminateError> for Failure {
    fn from(error: TerminateError) -> Self {
        let exit = match &error {
            TerminateError::Signal { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ExitCode::PermissionDenied
            }
            _ => ExitCode::DaemonStopFailed,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Asks a process of ours to end, waits, and kills it when it has not ended in time. `Ok(false)`: there was no
/// such process any more (its pid may belong to somebody else by now, who is left alone).
pub fn terminate_daemon(pid: u32, started_at: &StartMark, grace: Duration) -> Result<bool, TerminateError> {
    let signal_error = |source| TerminateError::Signal { pid, source };
    let Some(process) = ProcessHandle::open(pid).map_err(signal_error)? else { return Ok(false) };
    if start_mark(pid).as_ref() != Some(started_at) {
        return Ok(false);
    }
    ask_to_end(&process).map_err(signal_error)?;
    if process.wait(grace) {
        return Ok(true);
    }
    process.signal(Signal::Kill).map_err(signal_error)?;
    if process.wait(KILL_LIMIT) { Ok(true) } else { Err(TerminateError::StillAlive { pid }) }
}

#[cfg(not(windows))]
fn ask_to_end(process: &ProcessHandle) -> io::Result<()> {
    process.signal(Signal::Terminate)
}

/// No signal reaches a process without a console: each daemon listens on a pipe of its own. One that no longer listens
/// has been asked before, or cannot be asked: then the kill after the grace ends it.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "sending a signal can fail elsewhere")]
fn ask_to_end(process: &ProcessHandle) -> io::Result<()> {
    use std::io::Write;
    use std::os::windows::fs::OpenOptionsExt;

    /// Whoever owns the other end learns nothing about us and cannot act as us.
    const ANONYMOUS: u32 = 0;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).security_qos_flags(ANONYMOUS);
    let pipe = options.open(orch_core::end_request_pipe(process.pid()));
    let _ = pipe.and_then(|mut pipe| pipe.write_all(orch_core::END_REQUEST));
    Ok(())
}
