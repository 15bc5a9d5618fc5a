//! What to start, and what was started.

use std::fmt;
use std::path::PathBuf;

use orch_core::{InstanceName, MASK, ReplicaId, is_secret_name, redact_args, redact_env_value};
use serde::{Deserialize, Serialize};

use crate::identity::ProcessIdentity;
use crate::logs::LogFiles;

/// Everything a start needs. Nothing in it is looked up later: the shim that receives it knows no config.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSpec {
    pub instance: InstanceName,
    pub replica: ReplicaId,
    /// Absolute.
    pub executable: PathBuf,
    pub args: Vec<String>,
    /// The complete environment: the engine inherits nothing.
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    /// Where the engine binds, as in its arguments.
    pub host: String,
    pub port: u16,
    /// For the questions the shim asks the engine, and for the handoff file.
    pub api_key: Option<String>,
    pub engine_version: Option<String>,
    pub config_hash: String,
    pub device_mask: Option<String>,
    pub model_path: PathBuf,
    pub stdout_log: PathBuf,
    pub stderr_log: PathBuf,
    /// A log file is rotated before it outgrows this.
    pub log_max_bytes: u64,
    /// How many rotated files are kept beside each log file.
    pub log_rotation: u32,
    /// Rotated files older than this are removed; 0 keeps them.
    #[serde(default)]
    pub log_retention_days: u32,
    pub handoff: PathBuf,
    pub exit_record: PathBuf,
    pub engine_lock: PathBuf,
}

impl EngineSpec {
    pub fn log_files(&self) -> LogFiles {
        LogFiles { stdout: self.stdout_log.clone(), stderr: self.stderr_log.clone() }
    }

    /// What the engine may not be quoted with, should it say it: keys and tokens, each of a list by itself.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let shown = redact_args(&self.args);
        let hidden = self.args.iter().zip(&shown).filter(|(arg, shown)| arg != shown);
        let in_args =
            hidden.map(|(arg, shown)| arg.strip_prefix(shown.trim_end_matches(MASK)).unwrap_or(arg));
        let in_env =
            self.env.iter().filter(|(name, _)| is_secret_name(name)).map(|(_, value)| value.as_str());
        let lists = in_args.chain(in_env).chain(self.api_key.as_deref());
        let mut secrets: Vec<String> =
            lists.flat_map(|list| list.split(',')).map(|secret| secret.trim().to_owned()).collect();
        // One may begin like another: of the longer one nothing may be left.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

impl fmt::Debug for EngineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<_> =
            self.env.iter().map(|(name, value)| (name, redact_env_value(name, value))).collect();
        f.debug_struct("EngineSpec")
            .field("instance", &self.instance)
            .field("replica", &self.replica)
            .field("executable", &self.executable)
            .field("args", &redact_args(&self.args))
            .field("env", &env)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("api_key", &self.api_key.as_ref().map(|_| MASK))
            .field("engine_lock", &self.engine_lock)
            .finish_non_exhaustive()
    }
}

/// A started engine and its shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineHandle {
    pub identity: ProcessIdentity,
    pub shim_pid: u32,
}
