//! The failures that many places of this crate end in.

use std::io;
use std::path::Path;

use orch_core::{ExitCode, Failure};

/// A file operation failed. Missing permission has its own exit code; everything else has the caller's.
pub(crate) fn file(exit: ExitCode, action: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {action} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(ExitCode::PermissionDenied, message),
        io::ErrorKind::StorageFull => Failure::new(exit, message).hint("free disk space and try again"),
        _ => Failure::new(exit, message),
    }
}

/// Putting an engine in place failed.
pub(crate) fn install(action: &str, path: &Path, error: &io::Error) -> Failure {
    file(ExitCode::InstallFailed, action, path, error)
}

/// The engine or its archive is not what it should be.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::EngineInvalid, message)
}

/// No such engine.
pub(crate) fn not_found(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::EngineNotFound, message)
}

/// A background thread died. It can only panic, and a panic is a bug.
pub(crate) fn thread_died(_: tokio::task::JoinError) -> Failure {
    Failure::new(ExitCode::General, "a worker thread of the installer died")
}
