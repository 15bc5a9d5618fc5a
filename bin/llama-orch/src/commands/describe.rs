//! `describe`: everything about one instance.

use instance_config::Catalog;
use orch_core::{Failure, InstanceName};
use orchestratord::compose::{Memory, engine_profile};
use serde_json::Value;

use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::targets::Plane;
use crate::words::show_duration;

pub(super) fn run(context: &Context, name: &str) -> CommandResult {
    let document = document(context, name)?;
    if context.printer.json() {
        return Ok(context.printer.document(&document)?);
    }
    Ok(context.printer.text(&sheet(&document))?)
}

fn document(context: &Context, name: &str) -> Result<Value, Failure> {
    let plane = Plane::find(context)?;
    if let Plane::Remote(client) = &plane {
        return block_on(client.describe(name));
    }
    let catalog = context.catalog()?;
    let instance = match catalog.select(name) {
        Ok(instance) => instance,
        Err(failure) => return remnant(context, &catalog, name, failure),
    };
    if let Some(client) = plane.client() {
        match block_on(client.describe(instance.config.name.as_str())) {
            Ok(document) => return Ok(document),
            Err(failure) => context.talk.warning(&failure.message),
        }
    }
    let profile = engine_profile(context.home()?, &instance.config, Memory::ReadOnly);
    context.look(|viewer| viewer.describe(instance, &profile))
}

/// What is left of an instance whose config is gone or broken; only where nothing is the failure stands.
fn remnant(context: &Context, catalog: &Catalog, name: &str, failure: Failure) -> Result<Value, Failure> {
    let Ok(known) = InstanceName::new(name) else { return Err(failure) };
    let broken = catalog.broken.iter().find(|it| it.name == name);
    context.look(|viewer| viewer.describe_remnant(&known, broken))?.ok_or(failure)
}

/// The document for people: what they look for first stands first.
fn sheet(document: &Value) -> String {
    let mut text = String::new();
    for section in [
        pairs("", &overview(document)),
        block("changed since the start (restart needed)", &changes(&document["changes"])),
        pairs("config", &fields("", &document["config"])),
        block("command", &command_line(&document["effective_command"])),
        pairs("variables", &variables(&document["env"])),
        pairs("process", &entries(&document["process"])),
        block("replicas", &replicas(&document["replicas"])),
        pairs("last exit", &exit(&document["last_exit"])),
        block("findings", &findings(&document["findings"])),
        block("events", &events(&document["events"])),
        block("health", &health(&document["health_history"])),
        pairs("paths", &entries(&document["paths"])),
    ] {
        if !section.is_empty() && !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&section);
    }
    text
}

fn overview(document: &Value) -> Vec<(String, String)> {
    let named = |label: &str, field: &str| {
        let value = &document[field];
        (!value.is_null()).then(|| (label.to_owned(), plain(value)))
    };
    let uptime = document["uptime_seconds"].as_u64().map(|it| ("uptime".to_owned(), show_duration(it)));
    let slots = &document["slots"];
    let slots = slots["busy"].as_u64().zip(slots["idle"].as_u64());
    let slots = slots.map(|(busy, idle)| ("slots".to_owned(), format!("{busy} of {} busy", busy + idle)));
    let restart = document["restart_needed"].as_bool().filter(|needed| *needed);
    [
        named("name", "name"),
        named("display name", "display_name").filter(|(_, shown)| *shown != plain(&document["name"])),
        named("uid", "uid"),
        named("status", "status"),
        named("health", "health"),
        named("wanted", "desired_state"),
        named("last error", "last_error"),
        named("next restart", "next_restart_at"),
        restart.map(|_| ("restart".to_owned(), "needed: the config has changed since the start".to_owned())),
        named("pid", "pid"),
        named("host", "host"),
        named("port", "port"),
        named("model", "model"),
        named("backend", "backend"),
        named("device", "device"),
        slots,
        uptime,
        named("restarts", "restarts"),
        Some(&document["engine"]).filter(|engine| !engine.is_null()).map(engine),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn engine(engine: &Value) -> (String, String) {
    let text = match engine["error"].as_str() {
        Some(error) => error.to_owned(),
        None => match engine["version"].as_str() {
            Some(version) => format!("{} ({version})", plain(&engine["executable"])),
            None => plain(&engine["executable"]),
        },
    };
    ("engine".to_owned(), text)
}

fn command_line(words: &Value) -> Vec<String> {
    let words: Vec<&str> = words.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if words.is_empty() { Vec::new() } else { vec![crate::words::command_line(&words)] }
}

fn changes(changes: &Value) -> Vec<String> {
    let side = |value: &Value| match value.as_str() {
        None => "-".to_owned(),
        Some("") => "set".to_owned(),
        Some(text) => text.to_owned(),
    };
    let line = |change: &Value| {
        let argument = plain(&change["argument"]);
        match (&change["running"], &change["config"]) {
            (Value::Null, Value::Null) => argument,
            (running, config) => format!("{argument}: {} -> {}", side(running), side(config)),
        }
    };
    changes.as_array().into_iter().flatten().map(line).collect()
}

/// The config as `config set` names its fields; what is empty says nothing.
fn fields(prefix: &str, config: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Null => {}
            Value::Object(_) => found.extend(fields(&path, value)),
            Value::Array(list) if list.is_empty() => {}
            value => found.push((path, plain(value))),
        }
    }
    found
}

fn entries(object: &Value) -> Vec<(String, String)> {
    variables(object).into_iter().map(|(name, value)| (name.replace('_', " "), value)).collect()
}

/// Names as they are: they are not ours to make readable.
fn variables(object: &Value) -> Vec<(String, String)> {
    let entries = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    entries.map(|(name, value)| (name.clone(), plain(value))).collect()
}

/// A line for each, where there is more to an instance than the first.
fn replicas(replicas: &Value) -> Vec<String> {
    let rows = replicas.as_array().map_or(&[][..], Vec::as_slice);
    if rows.len() < 2 {
        return Vec::new();
    }
    let line = |row: &Value| {
        let number = plain(&row["replica_id"]);
        let device = row["device"].as_u64().map_or(String::new(), |device| format!("  device {device}"));
        let error = row["last_error"].as_str().map_or(String::new(), |error| format!("  {error}"));
        format!(
            "{number}  {}  {}  pid {}  port {}{device}{error}",
            plain(&row["status"]),
            plain(&row["health"]),
            plain(&row["pid"]),
            plain(&row["port"])
        )
    };
    rows.iter().map(line).collect()
}

fn exit(record: &Value) -> Vec<(String, String)> {
    let Some(record) = record.as_object() else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, value) in record.iter().filter(|(name, _)| *name != "last_stderr") {
        lines.push((name.replace('_', " "), plain(value)));
    }
    let words = record.get("last_stderr").and_then(Value::as_array).into_iter().flatten();
    lines.extend(words.map(|line| ("stderr".to_owned(), plain(line))));
    lines
}

fn findings(findings: &Value) -> Vec<String> {
    let line = |finding: &Value| {
        let field = finding["field"].as_str().map_or(String::new(), |field| format!("{field}: "));
        format!("{}  {field}{}", plain(&finding["severity"]), plain(&finding["message"]))
    };
    findings.as_array().into_iter().flatten().map(line).collect()
}

fn events(events: &Value) -> Vec<String> {
    let line = |event: &Value| {
        format!("{}  {:17}  {}", plain(&event["ts"]), plain(&event["event_type"]), plain(&event["message"]))
    };
    events.as_array().into_iter().flatten().map(line).collect()
}

fn health(rows: &Value) -> Vec<String> {
    let line = |row: &Value| {
        let took = row["response_time_ms"].as_u64().map_or(String::new(), |took| format!("  {took} ms"));
        let error = row["error_message"].as_str().map_or(String::new(), |error| format!("  {error}"));
        format!("{}  {}{took}{error}", plain(&row["checked_at"]), plain(&row["health"]))
    };
    rows.as_array().into_iter().flatten().map(line).collect()
}

/// A JSON value without quotation marks.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn block(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("{title}\n  {}\n", lines.join("\n  "))
}

fn pairs(title: &str, pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{:width$} {value}", format!("{name}:"));
    let lines: Vec<String> = pairs.iter().map(line).collect();
    if title.is_empty() { lines.join("\n") + "\n" } else { block(title, &lines) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sheet_leaves_out_what_is_not_known() {
        let document = json!({
            "name": "chat", "display_name": "chat", "status": "stopped", "pid": null,
            "engine": {"error": "none installed"}, "effective_command": [], "env": {}, "last_exit": null,
            "process": {"ours": false, "reason": "no process"}, "events": [], "health_history": [],
            "paths": {"config": "/h/config.json"},
        });
        assert_eq!(
            sheet(&document),
            "name:   chat\nstatus: stopped\nengine: none installed\n\nprocess\n  ours:   false\n  reason: no process\n\n\
             paths\n  config: /h/config.json\n"
        );
    }
}
