//! How it is told.

use std::path::Path;

use engine_provisioner::OlderEngine;
use instance_config::{Change, ConfigPlan};
use serde_json::{Value, json};

use super::super::validate::{counted, show_finding};
use super::apply::Done;
use super::plan::Plan;
use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn preview(context: &Context, plan: &Plan) -> CommandResult {
    if context.printer.json() {
        return Ok(context.printer.document(&document(plan, false, &[]))?);
    }
    all(context, plan)?;
    if plan.is_empty() {
        return Ok(context.printer.line("everything is up to date")?);
    }
    context.printer.line(format_args!("{} would change", what(plan)))?;
    context.talk.note("apply it with: llama-orch config migrate --apply");
    Ok(())
}

pub(super) fn applied(context: &Context, done: &Done) -> CommandResult {
    let backups: Vec<&Path> = done.backups.iter().map(|path| path.as_path()).collect();
    if context.printer.json() {
        return Ok(context.printer.document(&document(&done.plan, true, &backups))?);
    }
    all(context, &done.plan)?;
    if !backups.is_empty() {
        context.talk.note("each old config is kept beside the new one, as config.json.v<version>.backup");
    }
    Ok(context.printer.line(format_args!("{} changed", what(&done.plan)))?)
}

fn document(plan: &Plan, applied: bool, backups: &[&Path]) -> Value {
    let config = |(at, config): (usize, &ConfigPlan)| json!({"name": config.name, "path": config.path, "changes": config.changes, "backup": backups.get(at)});
    json!({
        "applied": applied,
        "configs": plan.configs.configs.iter().enumerate().map(config).collect::<Vec<_>>(),
        "engines": plan.engines.engines,
        "default_engine": plan.engines.default,
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

fn what(plan: &Plan) -> String {
    let all = plan.configs.catalog.instances.len() + plan.configs.catalog.broken.len();
    let configs = plan.configs.configs.len();
    format!("{configs} of {}, {}", counted(all, "config"), counted(plan.engines.engines.len(), "engine"))
}
