//! What can be wrong with the control plane's database, and which exit code that is.

use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};
use rusqlite::ErrorCode as SqliteCode;

use crate::migrations::SCHEMA_VERSION;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("database {} has version {found}, this program knows versions up to {SCHEMA_VERSION}", .path.display())]
    TooNew { path: PathBuf, found: i64 },
    #[error("{} is an SQLite database, but not one of a control plane", .path.display())]
    Foreign { path: PathBuf },
    #[error("database {} is damaged: {detail}", .path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("database {} stayed locked by another process", .path.display())]
    Busy { path: PathBuf },
    #[error("no permission to use {}", .path.display())]
    Denied { path: PathBuf },
    #[error("a key named {name} exists already")]
    KeyExists { name: String },
    #[error("no key is called {selector}")]
    UnknownKey { selector: String },
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot use database {}", .path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// An error inside a transaction, before it is known which file it concerns.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(rusqlite::Error),
    KeyExists(String),
    UnknownKey(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ControlError {
    pub(crate) fn from_fault(path: &Path, fault: Fault) -> Self {
        match fault {
            Fault::Sqlite(error) => Self::from_sqlite(path, error),
            Fault::KeyExists(name) => Self::KeyExists { name },
            Fault::UnknownKey(selector) => Self::UnknownKey { selector },
        }
    }

    pub(crate) fn from_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(SqliteCode::DatabaseCorrupt | SqliteCode::NotADatabase) => {
                Self::Corrupt { path, detail: error.to_string() }
            }
            Some(SqliteCode::DatabaseBusy | SqliteCode::DatabaseLocked) => Self::Busy { path },
            // The file was seen before: it is its mode, or the folder's, that keeps it from being opened.
            Some(SqliteCode::PermissionDenied | SqliteCode::ReadOnly | SqliteCode::CannotOpen) => {
                Self::Denied { path }
            }
            _ if is_unreadable_value(&error) => Self::Corrupt { path, detail: error.to_string() },
            _ => Self::Sqlite { path, source: error },
        }
    }

    pub(crate) fn from_io(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Denied { path },
            _ => Self::Io { path, source: error },
        }
    }

    /// The exit code of a command that ended with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::TooNew { .. } | Self::Foreign { .. } | Self::Corrupt { .. } => ExitCode::StateUnusable,
            Self::Busy { .. } => ExitCode::LockNotAcquired,
            Self::Denied { .. } => ExitCode::PermissionDenied,
            Self::KeyExists { .. } => ExitCode::AlreadyExists,
            Self::UnknownKey { .. } => ExitCode::InstanceNotFound,
            Self::Io { .. } | Self::Sqlite { .. } => ExitCode::General,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooNew { .. } => Some("use the newer program that wrote it; the file was left as it is"),
            Self::Foreign { .. } => Some("move the file away or choose another home with --home"),
            Self::Corrupt { .. } => {
                Some("restore a backup, or move the file away; its keys have to be made anew then")
            }
            Self::Busy { .. } => Some("try again; if it stays so, look for a hanging llama-orch process"),
            Self::Denied { .. } => Some("check the owner and mode of the home folder"),
            Self::KeyExists { .. } => Some("choose another --name, or revoke that one first"),
            Self::UnknownKey { .. } => Some("see `llama-orch token list`"),
            Self::Io { .. } | Self::Sqlite { .. } => None,
        }
    }
}

/// A stored value that no version of ours writes: a word out of its list, a number out of its range.
fn is_unreadable_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let message = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let failure = Failure::new(error.exit_code(), message);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
