//! Taking an instance out of a home.

use std::io;
use std::path::Path;

use orch_core::{ExitCode, Failure, InstanceName};

use crate::instance_lock::InstanceLock;
use crate::node::Node;

/// The refusal for an instance that still runs.
pub(crate) fn still_running(name: &InstanceName) -> Failure {
    Failure::new(ExitCode::AlreadyRunning, format!("{name} is running"))
        .hint(format!("stop it first (llama-orch down {name}), or use --force"))
}

/// Removes config (where there is one), state and, unless they are to be kept, logs. The instance must not run. The
/// database goes last but one: a removal that is cut short can be done again.
pub(crate) fn remove(
    node: &Node,
    _lock: &InstanceLock,
    name: &InstanceName,
    config: Option<&Path>,
    keep_logs: bool,
) -> Result<(), Failure> {
    if !keep_logs {
        remove_folder(&node.home.instance_logs(name))?;
    }
    node.store.remove_instance(name)?;
    let Some(config) = config else { return Ok(()) };
    match config.parent() {
        Some(folder) if folder.parent() == Some(node.home.instances().as_path()) => remove_folder(folder),
        _ => remove_file(config),
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
