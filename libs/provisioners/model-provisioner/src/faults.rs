//! What can go wrong, as users meet it.

use std::io;
use std::path::Path;

use orch_core::{ExitCode, Failure};

pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
        _ => ExitCode::DownloadFailed,
    };
    Failure::new(exit, format!("cannot {doing} {}: {error}", path.display()))
}

pub(crate) fn download(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::DownloadFailed, message)
}

pub(crate) fn not_found(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::ModelNotFound, message)
}

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::ModelInvalid, message)
}
