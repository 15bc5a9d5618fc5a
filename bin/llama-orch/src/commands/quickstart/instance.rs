//! The instance of the quick start: written the first time, brought up to date later.

use instance_config::{LoadedInstance, PortChoice, save};
use orch_core::{ExitCode, Failure, InstanceName, UnixMillis};

use super::NAME;
use super::engine::Engine;
use super::model::Model;
use crate::commands::init;
use crate::context::Context;

/// More threads help no model this small.
const MOST_THREADS: usize = 8;

/// The instance of an earlier run.
pub(super) fn known(context: &Context) -> Result<Option<LoadedInstance>, Failure> {
    match context.catalog()?.select(NAME) {
        Ok(instance) => Ok(Some(instance.clone())),
        Err(failure) if failure.exit == ExitCode::InstanceNotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

pub(super) fn write(
    context: &Context,
    known: Option<LoadedInstance>,
    engine: &Engine,
    model: &Model,
    port: Option<u16>,
) -> Result<LoadedInstance, Failure> {
    let mut instance = match known {
        Some(instance) => instance,
        None => create(context, model, port)?,
    };
    let before = instance.config.clone();
    if instance.config.model.path != model.field {
        instance.set("model.path", &model.field)?;
    }
    if let Some(port) = port {
        instance.set("server.port", &port.to_string())?;
    }
    if let Some(id) = &engine.pinned {
        instance.set("binary.binary_id", id)?;
    }
    if instance.config != before {
        save(&mut instance, UnixMillis::now())?;
    }
    Ok(instance)
}

fn create(context: &Context, model: &Model, port: Option<u16>) -> Result<LoadedInstance, Failure> {
    let home = context.home()?;
    let name = InstanceName::new(NAME).map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let port = port.map_or(PortChoice::Auto, PortChoice::Fixed);
    let mut new = init::plain_instance(home, name, model.field.clone(), port);
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    new.threads = u32::try_from(cpus.min(MOST_THREADS)).ok();
    new.context = model.context();
    init::create(context, &new)
}
