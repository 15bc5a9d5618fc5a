//! `init`: the config of a new instance.

use std::time::Duration;

use instance_config::{Backend, LoadedInstance, NewInstance, PortChoice, Severity, lint_instance};
use orch_core::{Failure, HomeLayout, InstanceName, UnixMillis};
use orchestratord::compose;
use serde_json::json;

use super::config::facts::Facts;
use super::engine::backend_of_machine;
use crate::arguments::{BackendArgument, InitArguments, PortArgument};
use crate::context::{Context, working_folder};
use crate::ending::CommandResult;

const LOCK_WAIT: Duration = Duration::from_secs(10);

pub(super) fn run(context: &Context, arguments: &InitArguments) -> CommandResult {
    let new = new_instance(context, arguments)?;
    let instance = create(context, &new)?;
    let findings = findings(context, &instance)?;
    if context.printer.json() {
        return Ok(context.printer.document(&json!({
            "name": instance.config.name,
            "uid": instance.config.instance_uid,
            "path": instance.path,
            "port": instance.config.server.port,
            "backend": instance.config.gpu.backend,
            "model": instance.config.model.path,
            "findings": findings,
        }))?);
    }
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Info) {
        let field = finding.field.as_deref().map_or(String::new(), |field| format!("{field}: "));
        context.talk.warning(&format!("{field}{}", finding.message));
    }
    context.talk.note(&format!("start it with: llama-orch up {}", instance.config.name));
    let (name, port) = (&instance.config.name, instance.config.server.port);
    Ok(context.printer.line(format_args!("{name} is written: {} (port {port})", instance.path.display()))?)
}

/// Writes a new config. Two commands at the same time choose different ports.
pub(super) fn create(context: &Context, new: &NewInstance) -> Result<LoadedInstance, Failure> {
    let home = context.home()?;
    // Everything that can be refused is refused before the lock makes a folder.
    let catalog = context.catalog()?;
    if !new.force && catalog.instances.iter().any(|known| known.config.name == new.name) {
        return instance_config::create(home, &catalog, new, &port_is_free, UnixMillis::now());
    }
    let _guard = engine_process::acquire(&creation_lock(home), "init", LOCK_WAIT)?;
    instance_config::create(home, &context.catalog()?, new, &port_is_free, UnixMillis::now())
}

/// The dot cannot occur in an instance name, so no instance's lock has this path.
fn creation_lock(home: &HomeLayout) -> std::path::PathBuf {
    home.locks().join(".init.lock")
}

fn port_is_free(port: u16) -> bool {
    engine_process::is_free("127.0.0.1", port)
}

fn new_instance(context: &Context, arguments: &InitArguments) -> Result<NewInstance, Failure> {
    let home = context.home()?;
    let template = arguments.template.as_deref().map(instance_config::find_template).transpose()?;
    let of_template = template.and_then(|template| template.backend);
    let backend = match arguments.backend {
        BackendArgument::Auto => of_template.unwrap_or_else(|| backend_of_machine(home)),
        BackendArgument::Cpu => Backend::Cpu,
        BackendArgument::Vulkan => Backend::Vulkan,
        BackendArgument::Cuda => Backend::Cuda,
        BackendArgument::Metal => Backend::Metal,
        BackendArgument::Hip => Backend::Hip,
    };
    Ok(NewInstance {
        name: arguments.name.clone(),
        model: instance_config::model_field(&arguments.model, &working_folder(), home),
        port: match arguments.port {
            PortArgument::Fixed(port) => PortChoice::Fixed(port),
            PortArgument::Auto => PortChoice::Auto,
        },
        backend,
        device: arguments.device,
        layers: arguments.layers,
        context: arguments.context,
        threads: arguments.threads.or_else(|| Some(threads_of_machine(backend))),
        template,
        force: arguments.force,
    })
}

/// Threads that compute beside a GPU do little: more of them only wait for each other.
const MOST_THREADS_BESIDE_A_GPU: u32 = 8;
/// The most that the format allows.
const MOST_THREADS: u32 = 1024;

fn threads_of_machine(backend: Backend) -> u32 {
    let most = if backend == Backend::Cpu { MOST_THREADS } else { MOST_THREADS_BESIDE_A_GPU };
    compose::compute_threads().clamp(1, most)
}

fn findings(context: &Context, instance: &LoadedInstance) -> Result<Vec<instance_config::Finding>, Failure> {
    let facts = Facts::new(context.home()?);
    Ok(lint_instance(instance, &context.catalog()?, &facts.for_lint()))
}

/// A new instance with nothing asked for but a model and a port.
pub(super) fn plain_instance(
    home: &HomeLayout,
    name: InstanceName,
    model: String,
    port: PortChoice,
) -> NewInstance {
    NewInstance {
        name,
        model,
        port,
        backend: backend_of_machine(home),
        device: None,
        layers: None,
        context: None,
        threads: None,
        template: None,
        force: false,
    }
}
