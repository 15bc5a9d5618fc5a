//! `up`: started, and ready when this returns.

use instance_config::{LoadedInstance, Severity, engine_command, lint_instance};
use orch_core::{EngineProfile, ExitCode, Failure, ReplicaId, Status, redact_args, redact_env_value};
use orch_runtime::reachable_host;
use orchestratord::compose::{self, Memory, engine_profile};
use pool_manager::alone;
use pool_manager::view::InstanceView;
use serde_json::{Map, Value, json};

use crate::arguments::{StartWait, StreamArgument, UpArguments};
use crate::commands::config::facts::Facts;
use crate::commands::scale::Scales;
use crate::commands::{down, logs, unlock};
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::runtime::block_on;
use crate::steps::{Warnings, carry_out};
use crate::targets::{Chosen, Plane, Target, choose, is_sweeping};
use crate::words::{command_line, quoted, show_duration};

pub(super) fn run(context: &Context, arguments: &UpArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let scales = Scales::read(context, &plane, &arguments.scale)?;
    let mut selection = arguments.selection.clone();
    if !is_sweeping(&selection) {
        selection.names.extend(scales.names().cloned());
    }
    if !arguments.dry_run {
        scales.write(context)?;
    }
    let skips = |row: &InstanceView| !arguments.dry_run && !scales.include(&row.name) && is_up(row);
    let mut chosen = choose(context, &plane, &selection, skips)?;
    if arguments.dry_run {
        scales.pretend(&mut chosen)?;
        return preview(context, &chosen);
    }
    if arguments.no_detach && matches!(plane, Plane::Remote(_)) {
        return Err(
            Failure::new(ExitCode::Usage, "the output is on the machine where the instances are").into()
        );
    }
    logs::warn_of_large_logs(context);
    let warnings = Warnings::default();
    tell_findings(context, &plane, &chosen, &warnings)?;
    let sweeping = is_sweeping(&selection);
    let started = carry_out(context, "starting", &chosen, &|target: &Target| {
        let plane = &plane.without_daemon(unlock::before_step(context, target, arguments.force_unlock)?);
        match start(context, plane, target, arguments, &warnings) {
            Err(failure) if failure.exit == ExitCode::AlreadyRunning && scales.include(&target.name) => {
                ready_words(context, plane, target, arguments.wait)
            }
            Err(failure) if sweeping && failure.exit == ExitCode::AlreadyRunning => {
                Ok("was running".to_owned())
            }
            Err(failure) => Err(failure),
            Ok(()) => ready_words(context, plane, target, arguments.wait),
        }
    });
    if !arguments.no_detach {
        return started;
    }
    started.and_then(|()| attend(context, &plane, &chosen))
}

fn start(
    context: &Context,
    plane: &Plane,
    target: &Target,
    arguments: &UpArguments,
    warnings: &Warnings,
) -> Result<(), Failure> {
    let limit = arguments.wait.limit();
    match (plane.client(), &target.instance) {
        (Some(client), _) => block_on(client.up(&target.name, limit)),
        (None, Some(instance)) => {
            let node = compose::open_node(context.home()?)?;
            for warning in block_on(alone::up(&node, instance, limit))? {
                warnings.tell(context, &format!("{}: {warning}", target.name));
            }
            Ok(())
        }
        (None, None) => Err(Failure::new(ExitCode::General, "nobody can start it")),
    }
}

/// Running, or on its way without anybody's help.
fn is_up(row: &InstanceView) -> bool {
    row.status == Status::Running || (row.status == Status::Starting && row.pid.is_some())
}

/// What is told of an instance that a start has succeeded for.
pub(super) fn ready_words(
    context: &Context,
    plane: &Plane,
    target: &Target,
    wait: StartWait,
) -> Result<String, Failure> {
    let word = if wait.no_wait { "is starting" } else { "is ready" };
    let (Plane::Daemon(_) | Plane::Alone, Some(instance)) = (plane, &target.instance) else {
        return Ok(word.to_owned());
    };
    let rows = context.look(|viewer| viewer.replicas(instance))?;
    let told: Vec<String> = rows.iter().filter_map(address_and_pid).collect();
    Ok(match &told[..] {
        [] => word.to_owned(),
        [only] => format!("{word}: {only}"),
        several => format!("{word}: {} replicas, {}", several.len(), several.join(", ")),
    })
}

fn address_and_pid(row: &InstanceView) -> Option<String> {
    let host = reachable_host(&row.host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("http://{host}:{} (pid {})", row.port, row.pid?))
}

/// What stops no start but should be known: everything that lint finds, less what the start itself refuses.
pub(super) fn tell_findings(
    context: &Context,
    plane: &Plane,
    chosen: &[Chosen],
    warnings: &Warnings,
) -> Result<(), Failure> {
    let instances: Vec<&LoadedInstance> =
        chosen.iter().filter_map(|one| one.target.as_ref().ok()?.instance.as_ref()).collect();
    if instances.is_empty() {
        return Ok(());
    }
    let catalog = context.catalog()?;
    let mut facts = Facts::new(context.home()?);
    for instance in &instances {
        // Without a daemon the start itself returns what it finds out about the engine.
        if matches!(plane, Plane::Daemon(_)) {
            facts.ask_engine(instance);
        }
        let findings = lint_instance(instance, &catalog, &facts.for_lint());
        let refused = |field: Option<&str>| field == Some("model.path");
        let told = findings.iter().filter(|finding| {
            finding.severity == Severity::Warning
                || (finding.severity == Severity::Error && !refused(finding.field.as_deref()))
        });
        for finding in told {
            let field = finding.field.as_deref().map_or(String::new(), |field| format!("{field}: "));
            warnings.tell(context, &format!("{}: {field}{}", instance.config.name, finding.message));
        }
    }
    Ok(())
}

/// `--dry-run`: what would be started, with secrets masked.
fn preview(context: &Context, chosen: &[Chosen]) -> CommandResult {
    let mut previews = Vec::new();
    let mut first_failure = None;
    for one in chosen {
        let planned = one.target.as_ref().map_err(Failure::clone).and_then(|target| plan(context, target));
        match planned {
            Ok(planned) => previews.extend(planned),
            Err(failure) => {
                context.talk.failure(&failure);
                first_failure.get_or_insert(failure.exit);
            }
        }
    }
    if context.printer.json() {
        context.printer.document(&previews)?;
    } else {
        for preview in &previews {
            show_preview(context, preview)?;
        }
    }
    first_failure.map_or(Ok(()), |exit| Err(Ended::Told(exit)))
}

/// What would be started for an instance: one engine for each replica.
fn plan(context: &Context, target: &Target) -> Result<Vec<Value>, Failure> {
    let Some(instance) = &target.instance else {
        return Err(Failure::new(ExitCode::Usage, "a start elsewhere cannot be shown here"));
    };
    let profile = engine_profile(context.home()?, &instance.config, Memory::ReadOnly)?;
    let replicas = (0..instance.config.replica_count(&profile)?).map(ReplicaId);
    replicas.map(|replica| plan_replica(context, instance, replica, &profile)).collect()
}

fn plan_replica(
    context: &Context,
    instance: &LoadedInstance,
    replica: ReplicaId,
    profile: &EngineProfile,
) -> Result<Value, Failure> {
    let (home, config) = (context.home()?, &instance.config.of_replica(replica));
    let model = instance_config::resolve_model_path(config, &instance.path, home);
    let command = engine_command(config, home, profile, &model, config.server.port);
    if let Some(rejected) = command.rejected.first() {
        let message = format!("{}: {}", config.name, rejected.message);
        let failure = Failure::new(ExitCode::ConfigInvalid, message);
        return Err(match &rejected.suggestion {
            Some(suggestion) => failure.hint(suggestion.clone()),
            None => failure,
        });
    }
    let mut words = vec![profile.executable.display().to_string()];
    words.extend(redact_args(&command.args));
    let variables = command.env_overrides.iter().map(|(name, value)| (name, value)).chain(&config.env);
    let env: Map<String, Value> =
        variables.map(|(name, value)| (name.clone(), Value::from(redact_env_value(name, value)))).collect();
    Ok(
        json!({"name": config.name, "replica_id": replica, "command": words, "env": env, "warnings": command.warnings}),
    )
}

fn show_preview(context: &Context, preview: &Value) -> CommandResult {
    for (name, value) in preview["env"].as_object().into_iter().flatten() {
        context.printer.line(format_args!("{name}={}", quoted(value.as_str().unwrap_or_default())))?;
    }
    let words: Vec<&str> =
        preview["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    context.printer.line(command_line(&words))?;
    for warning in preview["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        context.talk.warning(warning);
    }
    Ok(())
}

/// `--no-detach`: shows what the engines say until Ctrl-C, then stops them.
fn attend(context: &Context, plane: &Plane, chosen: &[Chosen]) -> CommandResult {
    let instances: Vec<LoadedInstance> =
        chosen.iter().filter_map(|one| one.target.as_ref().ok()?.instance.clone()).collect();
    let begun = std::time::Instant::now();
    let ended = logs::follow_all(context, &instances, StreamArgument::Both);
    let Err(Ended::Told(ExitCode::Interrupted) | Ended::OutputClosed) = ended else { return ended };
    context.talk.note(&format!("stopping after {}", show_duration(begun.elapsed().as_secs())));
    down::stop_all(context, plane, chosen)?;
    ended
}
