//! How it is told.

use std::path::Path;

use engine_provisioner::OlderEngine;
use instance_config::{Change, ConfigPlan};
use serde_json::{Value, json};
use state_store::Migration;

use super::super::validate::show_finding;
use super::apply::Done;
use super::plan::Plan;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::words::counted;

pub(super) fn preview(context: &Context, plan: &Plan) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(&document(plan, plan.state.as_ref(), None))?);
    }
    all(context, plan)?;
    if plan.is_empty() {
        return Ok(context.printer.line("nothing to change")?);
    }
    context.printer.line(format_args!("{} would change", what(plan, plan.state.is_some())))?;
    context.talk.note("apply it with: llama-orch config migrate --apply");
    Ok(())
}

pub(super) fn applied(context: &Context, done: &Done) -> CommandResult {
    let backups: Vec<&Path> = done.backups.iter().map(|path| path.as_path()).collect();
    if context.printer.json() {
        let state = done.state.as_ref().ok().and_then(Option::as_ref);
        return Ok(context.printer.document(&document(&done.plan, state, Some(&backups)))?);
    }
    all(context, &done.plan)?;
    if !backups.is_empty() {
        context.talk.note("each old config is kept beside the new one, as config.json.v<version>.backup");
    }
    if let Ok(Some(Migration { backup: Some(backup), .. })) = &done.state {
        context.talk.note(&format!("the old state database is kept as {}", backup.display()));
    }
    Ok(context
        .printer
        .line(format_args!("{} changed", what(&done.plan, matches!(done.state, Ok(Some(_))))))?)
}

/// A preview has no backups.
fn document(plan: &Plan, state: Option<&Migration>, backups: Option<&[&Path]>) -> Value {
    let config = |(at, config): (usize, &ConfigPlan)| {
        let backup = backups.and_then(|all| all.get(at));
        json!({"name": config.name, "path": config.path, "changes": config.changes, "backup": backup})
    };
    json!({
        "applied": backups.is_some(),
        "configs": plan.configs.configs.iter().enumerate().map(config).collect::<Vec<_>>(),
        "engines": plan.engines.engines,
        "default_engine": plan.engines.default,
        "state": state,
        "findings": plan.findings,
    })
}

fn all(context: &Context, plan: &Plan) -> CommandResult {
    for config in &plan.configs.configs {
        context.printer.line(format_args!("{}: {}", config.name, config.path.display()))?;
        for change in &config.changes {
            context.printer.line(format_args!("  {}", step(change)))?;
        }
    }
    for engine in &plan.engines.engines {
        context.printer.line(engine_line(engine, plan))?;
    }
    if let Some(state) = &plan.state {
        context.printer.line(state_line(state))?;
    }
    for finding in &plan.findings {
        show_finding(context, finding)?;
    }
    Ok(())
}

fn step(Change { field, from, to, reason }: &Change) -> String {
    match (from, to) {
        (Value::Null, to) => format!("{field} = {to} ({reason})"),
        (from, to) => format!("{field}: {from} becomes {to} ({reason})"),
    }
}

fn engine_line(engine: &OlderEngine, plan: &Plan) -> String {
    let version = engine.version.as_deref().unwrap_or("of unknown version");
    let default = if plan.engines.default == Some(engine.id) { ", the default" } else { "" };
    let executable = if engine.becomes_executable { ", made executable" } else { "" };
    format!("engine {version} ({}){default}{executable}: {}", engine.variant, engine.executable.display())
}

fn state_line(state: &Migration) -> String {
    let instances = counted(state.instances.len(), "instance");
    let (running, ignored) = (state.running.len(), state.ignored.len());
    let left_out =
        if ignored == 0 { String::new() } else { format!(", {ignored} without a usable name left out") };
    format!(
        "state database of version {}: {instances}, {running} of them running, {} events{left_out}",
        state.from, state.events
    )
}

fn what(plan: &Plan, with_state: bool) -> String {
    let all = plan.configs.catalog.instances.len() + plan.configs.catalog.broken.len();
    let configs = plan.configs.configs.len();
    let state = if with_state { ", the state database" } else { "" };
    format!(
        "{configs} of {}, {}{state}",
        counted(all, "config"),
        counted(plan.engines.engines.len(), "engine")
    )
}
