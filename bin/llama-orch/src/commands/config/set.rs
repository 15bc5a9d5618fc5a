//! `config set`: fields changed, checked before anything is written.

use std::time::Duration;

use instance_config::{Catalog, LoadedInstance, config_hash, load_file, refuse_claimed_port, save};
use orch_core::{EventLevel, EventType, Failure, InstanceName, UnixMillis};
use orchestratord::compose;
use serde_json::json;
use state_store::NewEvent;

use crate::context::Context;
use crate::ending::CommandResult;

/// How long another change of the same instance is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);

pub(in crate::commands::config) fn run(
    context: &Context,
    name: &str,
    assignments: &[(String, String)],
) -> CommandResult {
    let catalog = context.catalog()?;
    let (before, after) = change(context, &catalog, catalog.select(name)?, assignments)?;
    tell(context, &before, &after)
}

/// Changes the file of an instance, and returns it as it was and as it is.
pub(in crate::commands) fn change(
    context: &Context,
    catalog: &Catalog,
    known: &LoadedInstance,
    assignments: &[(String, String)],
) -> Result<(LoadedInstance, LoadedInstance), Failure> {
    let lock = context.home()?.instance_lock(&known.config.name);
    let _guard = engine_process::acquire(&lock, "config set", LOCK_WAIT).map_err(Failure::from)?;
    // What another command has written in the meantime counts.
    let before = load_file(&known.path).map_err(|broken| broken.failure())?;
    let mut instance = before.clone();
    instance.set_all(assignments)?;
    refuse_claimed_port(catalog, &before, &instance)?;
    save(&mut instance, UnixMillis::now())?;
    remember(context, &instance.config.name, assignments)?;
    Ok((before, instance))
}

/// A home where nothing was ever started keeps no events.
fn remember(context: &Context, name: &InstanceName, assignments: &[(String, String)]) -> Result<(), Failure> {
    if context.reader()?.is_none() {
        return Ok(());
    }
    let fields: Vec<&str> = assignments.iter().map(|(field, _)| field.as_str()).collect();
    let event = NewEvent {
        instance: Some(name),
        level: EventLevel::Info,
        event_type: EventType::ConfigChanged,
        message: format!("changed {}", fields.join(", ")),
        meta: Some(json!({"fields": fields})),
    };
    compose::open_store(context.home()?)?.append_event(&event, UnixMillis::now())?;
    Ok(())
}

fn tell(context: &Context, before: &LoadedInstance, after: &LoadedInstance) -> CommandResult {
    let rows = context.look(|viewer| viewer.replicas(after))?;
    let runs = rows.iter().any(|row| row.pid.is_some());
    let concerns_engine = config_hash(&before.config) != config_hash(&after.config);
    let restart_needed = runs && (rows.iter().any(|row| row.restart_needed) || concerns_engine);
    if context.printer.json() {
        let document = json!({
            "name": after.config.name, "path": after.path, "restart_needed": restart_needed, "findings": after.findings,
        });
        return Ok(context.printer.document(&document)?);
    }
    for finding in &after.findings {
        context.talk.warning(&finding.message);
    }
    if restart_needed {
        context
            .talk
            .note(&format!("the running engine hears of it at: llama-orch restart {}", after.config.name));
    } else if runs {
        context.talk.note("the running engine needs no restart for it");
    }
    Ok(context.printer.line(format_args!("{} is changed", after.config.name))?)
}
