//! `engine remove`: an engine goes, unless somebody needs it.

use engine_provisioner::{InstalledEngine, Registry};
use orch_core::{ExitCode, Failure, ReplicaId};

use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, selector: &str, force: bool) -> CommandResult {
    let home = context.home()?;
    let engine = Registry::load(home)?.select(selector)?;
    if !force {
        refuse_in_use(context, &engine)?;
    }
    let removed = engine_provisioner::remove(home, &engine.id.to_string())?;
    if context.printer.json() {
        return Ok(context.printer.document(&removed)?);
    }
    Ok(context.printer.line(format_args!("{} ({}) is removed", removed.version, removed.variant))?)
}

fn refuse_in_use(context: &Context, engine: &InstalledEngine) -> Result<(), Failure> {
    let catalog = context.catalog()?;
    let hint = "stop or change it first, or use --force";
    for instance in &catalog.instances {
        let config = &instance.config;
        if config.binary.binary_id == Some(engine.id) {
            let message = format!("{} is pinned to engine {}", config.name, engine.version);
            return Err(Failure::new(ExitCode::AlreadyExists, message).hint(hint));
        }
        let running = context.look(|viewer| viewer.replicas(instance))?;
        for row in running.iter().filter(|row| row.pid.is_some()) {
            if running_executable(context, instance, row.replica_id)?.as_ref() == Some(&engine.executable) {
                let message = format!("{} runs engine {}", config.name, engine.version);
                return Err(Failure::new(ExitCode::AlreadyRunning, message).hint(hint));
            }
        }
    }
    Ok(())
}

fn running_executable(
    context: &Context,
    instance: &instance_config::LoadedInstance,
    replica: ReplicaId,
) -> Result<Option<std::path::PathBuf>, Failure> {
    let Some(reader) = context.reader()? else { return Ok(None) };
    let row = reader.runtime(&instance.config.name, replica)?;
    Ok(row.and_then(|row| row.exe))
}
