//! What a starter and a shim say to each other: one JSON document each way over stdin and stdout, so that no
//! secret ever stands in an argument list.

use serde::{Deserialize, Serialize};

use crate::identity::ProcessIdentity;
use crate::locks::LockHolder;
use crate::spec::EngineSpec;

/// The word that turns any of our binaries into a shim.
pub(crate) const SHIM_WORD: &str = "shim";

/// Specs hold a command line and an environment; the kernel itself refuses far smaller ones.
pub(crate) const REQUEST_LIMIT: usize = 16 * 1024 * 1024;
pub(crate) const REPLY_LIMIT: usize = 256 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Start this engine and keep it.
    Launch(EngineSpec),
    /// Keep an engine whose shim was killed.
    Adopt { spec: EngineSpec, identity: ProcessIdentity },
}

impl Request {
    pub(crate) fn spec(&self) -> &EngineSpec {
        match self {
            Self::Launch(spec) | Self::Adopt { spec, .. } => spec,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Started {
        identity: ProcessIdentity,
        shim_pid: u32,
    },
    /// The engine has this shim now: the one asked, or one that was there already.
    Adopted {
        shim_pid: u32,
    },
    AlreadyRunning {
        holder: Option<LockHolder>,
    },
    /// The engine to be adopted is not there, or is not ours.
    NotOurs {
        reason: String,
    },
    Failed {
        step: Step,
        kind: FailureKind,
        message: String,
    },
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Request,
    Lock,
    Logs,
    Executable,
}

/// What the system said, as far as it decides an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    Missing,
    Denied,
    Other,
}

impl From<std::io::ErrorKind> for FailureKind {
    fn from(kind: std::io::ErrorKind) -> Self {
        match kind {
            std::io::ErrorKind::NotFound => Self::Missing,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Other,
        }
    }
}
