//! What is known of one installed engine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ByteCount;

/// One device that an engine can use, as its `--list-devices` prints it. The CPU is never listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The engine's own name for it, such as `CUDA0`: an ordinal of that process, not of the machine.
    pub id: String,
    /// The product name.
    pub name: String,
    pub memory_total: ByteCount,
    pub memory_free: ByteCount,
}

/// What a probe of a `llama-server` executable told: read once for each executable and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineProfile {
    /// Absolute path.
    pub executable: PathBuf,
    /// As the executable names itself, or as the installer recorded it.
    pub version: Option<String>,
    /// Every flag of its `--help`, short and long; empty when the probe failed, and then nothing is refused.
    pub flags: BTreeSet<String>,
    pub devices: Vec<DeviceInfo>,
}

impl EngineProfile {
    /// Whether the engine takes this flag. Without knowledge the answer is yes: a guess must not refuse.
    pub fn knows_flag(&self, flag: &str) -> bool {
        self.flags.is_empty() || self.flags.contains(flag)
    }
}
