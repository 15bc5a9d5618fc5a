//! The instance of the quick start: written the first time, brought up to date later.

use std::hash::{DefaultHasher, Hash, Hasher};

use instance_config::{LoadedInstance, PortChoice, save};
use orch_core::{ExitCode, Failure, InstanceName, UnixMillis};

use super::NAME;
use super::engine::Engine;
use super::model::Model;
use crate::commands::init;
use crate::context::Context;

const FIRST_PORT: u16 = 8001;
/// Where the homes of a machine may begin to look.
const PLACES: u16 = 400;
const PORTS_TRIED: u16 = 1000;
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

/// Gives the instance another port, when somebody else was quicker on the one that was chosen for it.
pub(super) fn move_port(context: &Context, instance: &mut LoadedInstance) -> Result<(), Failure> {
    instance.set("server.port", &free_port(context)?.to_string())?;
    save(instance, UnixMillis::now())
}

/// A port that nobody claims. Homes begin to look at different places, so that quick starts at the same moment do not
/// meet.
fn free_port(context: &Context) -> Result<u16, Failure> {
    let home = context.home()?;
    let catalog = context.catalog()?;
    let mut hasher = DefaultHasher::new();
    home.root().hash(&mut hasher);
    let begin = FIRST_PORT + (hasher.finish() % u64::from(PLACES)) as u16;
    let is_free =
        |port: &u16| catalog.claiming(*port).next().is_none() && engine_process::is_free("127.0.0.1", *port);
    (begin..begin + PORTS_TRIED).find(is_free).ok_or_else(|| {
        let message = format!("no port from {begin} to {} is free", begin + PORTS_TRIED - 1);
        Failure::new(ExitCode::PortUnavailable, message).hint("name one: --port N")
    })
}

fn create(context: &Context, model: &Model, port: Option<u16>) -> Result<LoadedInstance, Failure> {
    let home = context.home()?;
    let name = InstanceName::new(NAME).map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let port = match port {
        Some(port) => port,
        None => free_port(context)?,
    };
    let port = PortChoice::Fixed(port);
    let mut new = init::plain_instance(home, name, model.field.clone(), port);
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    new.threads = u32::try_from(cpus.min(MOST_THREADS)).ok();
    new.context = model.context();
    init::create(context, &new)
}
