//! The starter's side: bring up a shim, hand it its task, hear its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::{ExitCode, Failure};

use crate::identity::ProcessIdentity;
use crate::locks::LockHolder;
use crate::protocol::{FailureKind, Reply, Request, SHIM_WORD, Step};
use crate::spec::{EngineHandle, EngineSpec};
use crate::sys::converse;

/// A shim answers in milliseconds; it may wait some seconds for the remains of a predecessor to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Why an engine was not started or adopted.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The engine's lock is held: it runs, or something it started does.
    #[error("an engine of this replica runs already{}", describe(holder.as_ref()))]
    AlreadyRunning { holder: Option<LockHolder> },
    #[error("engine executable {} does not exist", executable.display())]
    ExecutableMissing { executable: PathBuf },
    #[error("permission denied: {message}")]
    Denied { message: String },
    #[error("cannot start {}: {message}", executable.display())]
    SpawnFailed { executable: PathBuf, message: String },
    /// The engine to be adopted has ended or was never ours.
    #[error("not adopted: {reason}")]
    NotOurs { reason: String },
    #[error("the engine's shim failed: {message}")]
    ShimFailed { message: String },
}

fn describe(holder: Option<&LockHolder>) -> String {
    match holder.map(|holder| (holder, &holder.engine)) {
        Some((_, Some(engine))) => format!(" with pid {} on port {}", engine.pid, engine.port),
        Some((holder, None)) if holder.pid != 0 => format!("; its lock is held by pid {}", holder.pid),
        _ => String::new(),
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let exit = match &error {
            LaunchError::AlreadyRunning { .. } => ExitCode::AlreadyRunning,
            LaunchError::ExecutableMissing { .. } => ExitCode::EngineNotFound,
            LaunchError::Denied { .. } => ExitCode::PermissionDenied,
            LaunchError::NotOurs { .. } => ExitCode::ProcessNotFound,
            LaunchError::SpawnFailed { .. } | LaunchError::ShimFailed { .. } => ExitCode::StartFailed,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Starts an engine under a new shim and returns as soon as the process exists; it loads its model after that.
/// Whoever calls may die at any moment: the engine and its shim do not notice.
pub fn launch(shim_executable: &Path, spec: &EngineSpec) -> Result<EngineHandle, LaunchError> {
    match ask_new_shim(shim_executable, &Request::Launch(spec.clone()))? {
        Reply::Started { identity, shim_pid } => Ok(EngineHandle { identity, shim_pid }),
        other => Err(refusal(other, spec)),
    }
}

/// Gives a new shim to an engine whose own was killed, and returns its pid. An engine that has a shim keeps it.
/// The new shim watches by pid: it rotates the logs and sees the end, but is not told the exit code.
pub fn adopt(
    shim_executable: &Path,
    spec: &EngineSpec,
    identity: &ProcessIdentity,
) -> Result<u32, LaunchError> {
    let request = Request::Adopt { spec: spec.clone(), identity: identity.clone() };
    match ask_new_shim(shim_executable, &request)? {
        Reply::Adopted { shim_pid } => Ok(shim_pid),
        other => Err(refusal(other, spec)),
    }
}

fn ask_new_shim(shim_executable: &Path, request: &Request) -> Result<Reply, LaunchError> {
    let shim_failed = |error: io::Error| LaunchError::ShimFailed {
        message: format!("{}: {error}", shim_executable.display()),
    };
    let text = serde_json::to_vec(request).map_err(|error| shim_failed(error.into()))?;
    // The instance's name stands behind the word only for people who read process listings.
    let name = request.spec().replica.display_name(&request.spec().instance);
    let answer = converse(shim_executable, &[SHIM_WORD, &name], &text, ANSWER_LIMIT).map_err(shim_failed)?;
    serde_json::from_slice(&answer).map_err(|error| shim_failed(error.into()))
}

fn refusal(reply: Reply, spec: &EngineSpec) -> LaunchError {
    match reply {
        Reply::AlreadyRunning { holder } => LaunchError::AlreadyRunning { holder },
        Reply::NotOurs { reason } => LaunchError::NotOurs { reason },
        Reply::Failed { kind: FailureKind::Denied, message, .. } => LaunchError::Denied { message },
        Reply::Failed { step: Step::Executable, kind: FailureKind::Missing, .. }
            if !spec.executable.exists() =>
        {
            LaunchError::ExecutableMissing { executable: spec.executable.clone() }
        }
        Reply::Failed { step: Step::Executable, message, .. } => {
            LaunchError::SpawnFailed { executable: spec.executable.clone(), message }
        }
        Reply::Failed { message, .. } => LaunchError::ShimFailed { message },
        Reply::Started { .. } | Reply::Adopted { .. } => {
            LaunchError::ShimFailed { message: "it answered another question".to_owned() }
        }
    }
}

/// The binary to run shims from: this one, also after an upgrade has replaced its file.
pub fn default_shim_executable() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    // Linux keeps the old program reachable here; elsewhere the new one does just as well.
    #[cfg(target_os = "linux")]
    if !path.exists() {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    Ok(path)
}
