//! Where an engine's output goes.

use std::path::{Path, PathBuf};

use orch_core::{HomeLayout, ReplicaId};

use crate::InstanceConfig;
use crate::model_file::native_path;

/// The log file that a template of `logs` stands for, absolute. Replicas after the first add `.rN` before the
/// extension.
pub fn log_path(template: &str, config: &InstanceConfig, home: &HomeLayout, replica: ReplicaId) -> PathBuf {
    let path = home.root().join(native_path(&template.replace("{name}", config.name.as_str())));
    if replica == ReplicaId::FIRST { path } else { of_replica(&path, replica) }
}

fn of_replica(path: &Path, replica: ReplicaId) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}.{replica}.{}", extension.to_string_lossy()),
        None => format!("{stem}.{replica}"),
    };
    path.with_file_name(name)
}
