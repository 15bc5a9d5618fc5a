//! Taking an instance out of a home.

use std::io;
use std::path::Path;

use instance_config::LoadedInstance;
use orch_core::{ExitCode, Failure, InstanceName};

use crate::node::Node;
use crate::operate::InstanceLock;

/// The refusal for an instance that still runs.
pub(crate) fn still_running(name: &InstanceName) -> Failure {
    Failure::new(ExitCode::AlreadyRunning, format!("{name} is running"))
        .hint(format!("stop it first (llama-orch down {name}), or use --force"))
}

/// Removes config, state and, unless they are to be kept, logs. The instance must not run. The database goes
/// last but one: a removal that is cut short can be done again.
pub(crate) fn remove(
    node: &Node,
    _lock: &InstanceLock,
    instance: &LoadedInstance,
    keep_logs: bool,
) -> Result<(), Failure> {
    let name = &instance.config.name;
    if !keep_logs {
        remove_folder(&node.home.instance_logs(name))?;
    }
    node.store.remove_instance(name)?;
    match instance.path.parent() {
        Some(folder) if folder.parent() == Some(node.home.instances().as_path()) => remove_folder(folder),
        _ => remove_file(&instance.path),
    }
}

fn remove_folder(path: &Path) -> Result<(), Failure> {
    tolerate_missing(std::fs::remove_dir_all(path), path)
}

fn remove_file(path: &Path) -> Result<(), Failure> {
    tolerate_missing(std::fs::remove_file(path), path)
}

fn tolerate_missing(result: io::Result<()>, path: &Path) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::new(
            ExitCode::PermissionDenied,
            format!("cannot remove {}: {error}", path.display()),
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(ExitCode::General, format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
