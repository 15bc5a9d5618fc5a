//! A step: its kind, and the modifiers that every kind has.

use std::sync::Arc;
use std::time::Duration;

use super::kinds;
use super::link::RawStep;
use super::reader::{Fields, Reader, one_or_more};
use super::top::{ON_ERROR, Surroundings, failures};
use super::{MOST_STEPS, Shelf, is_identifier, is_name};
use crate::Decision;
use crate::document::{Entry, Node, Shape};
use crate::keys;
use crate::problems::did_you_mean;
use crate::{
    CachePolicy, Effect, FailureKind, FileRule, FileSource, MapOver, PassStep, RetryPolicy, Step, StepKind,
    WriteMode,
};

/// Reads a mapping of steps.
pub(super) fn read_all<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    surroundings: &Surroundings,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Vec<RawStep<'d>> {
    let entries = reader.named(node);
    if entries.len() > MOST_STEPS {
        reader.problem(node, format!("has more than {MOST_STEPS} steps"));
        return Vec::new();
    }
    let read = |entry: &'d Entry<'d>| read(reader, entry, surroundings, shelf, way);
    entries.iter().filter_map(read).collect()
}

fn read<'d>(
    reader: &mut Reader<'d>,
    entry: &'d Entry<'d>,
    surroundings: &Surroundings,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Option<RawStep<'d>> {
    let node = &entry.node;
    check_id(reader, entry, surroundings);
    let fields = reader.fields(node, &keys::STEP)?;
    // The body of a loop reads steps of its own meanwhile. What decides over the whole step does not see the
    // element of its map.
    let outer = std::mem::take(&mut reader.mentions);
    let map = fields.get("map").and_then(|node| map(reader, node));
    let when = fields.get("when").and_then(|node| reader.decision(node));
    let otherwise = fields.written("else").and_then(|node| reader.value_template(node));
    let beside = std::mem::take(&mut reader.mentions);
    let kind = kinds::read(reader, fields, surroundings, shelf, way);
    let step = Arc::new(Step {
        id: entry.key.to_string(),
        kind: StepKind::Pass(PassStep { value: None }),
        needs: Vec::new(),
        when,
        otherwise,
        map,
        samples: fields.get("samples").and_then(|node| reader.small_count(node, 1, 1000)),
        retry: fields.get("retry").map(|node| retry(reader, node)).unwrap_or_default(),
        timeout: fields.get("timeout").and_then(|node| reader.span(node)).unwrap_or(DEFAULT_TIMEOUT),
        deadline: fields.get("deadline").and_then(|node| reader.span(node)),
        cache: fields.get("cache").and_then(|node| cache(reader, node)).unwrap_or_default(),
        on_error: fields.get("on_error").and_then(|node| reader.word(node, ON_ERROR)),
        pools: fields.get("limits").map(|node| pools(reader, node, surroundings)).unwrap_or_default(),
        secrets: fields.get("secrets").map(|node| secrets(reader, node)).unwrap_or_default(),
        effect: effect(reader, fields),
        files: fields.get("files").map(|node| files(reader, node)).unwrap_or_default(),
    });
    check_map_and_samples(reader, fields);
    let inside = std::mem::replace(&mut reader.mentions, outer);
    Some(RawStep { node, step, kind, needs: needs(reader, fields), inside, beside })
}

pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

fn check_id<'d>(reader: &mut Reader<'d>, entry: &'d Entry<'d>, surroundings: &Surroundings) {
    if !is_name(&entry.key, 100) {
        let hint = "up to 100 letters, digits, _ and -";
        reader.hinted(&entry.node, format!("\"{}\" cannot name a step", entry.key), hint);
    }
    if entry.key == "budget" && surroundings.budget_gate {
        reader
            .problem(&entry.node, "\"budget\" is the gate of this job's budget; the step needs another name");
    }
}

fn check_map_and_samples<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) {
    if let (Some(_), Some(samples)) = (fields.get("map"), fields.get("samples")) {
        reader.problem(samples, "cannot stand beside map; samples of each element need a loop or a workflow");
    }
}

fn needs<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> Vec<(String, &'d Node<'d>)> {
    let mut needs = Vec::new();
    for node in fields.get("needs").map_or(&[][..], one_or_more) {
        needs.extend(reader.text(node).map(|id| (id.to_owned(), node)));
    }
    needs
}

fn map<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<MapOver> {
    if let Shape::Text { .. } = node.value {
        let over = reader.decision(node).or_else(nothing)?;
        return Some(MapOver { over, name: "item".to_owned(), max: 1000 });
    }
    let fields = reader.fields(node, &keys::MAP)?;
    let over = fields.get("over").and_then(|node| reader.decision(node).or_else(nothing));
    let name = fields.get("as").and_then(|node| {
        let name = reader.text(node)?;
        let taken = ["steps", "inputs", "files", "secrets", "index", "sample", "iteration", "previous"];
        if !is_identifier(name) || taken.contains(&name) {
            reader.problem(node, format!("\"{name}\" cannot name the element"));
        }
        Some(name.to_owned())
    });
    let max = fields.get("max").and_then(|node| reader.small_count(node, 1, 100_000)).unwrap_or(1000);
    Some(MapOver { over: over?, name: name.unwrap_or_else(|| "item".to_owned()), max })
}

/// In the place of a decision that is none, which has been told: the element's name is known all the same.
fn nothing() -> Option<Decision> {
    Decision::compile("[]").ok()
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let on = vec![FailureKind::Connect, FailureKind::RateLimit, FailureKind::Overloaded];
        Self { max: 2, base: Duration::from_secs(1), cap: Duration::from_secs(30), on }
    }
}

fn retry<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    if let Shape::Number(_) = node.value {
        policy.max = reader.small_count(node, 0, 100).unwrap_or(policy.max);
        return policy;
    }
    let Some(fields) = reader.fields(node, &keys::RETRY) else { return policy };
    let max = fields.get("max").and_then(|node| reader.small_count(node, 0, 100));
    policy.max = max.unwrap_or(policy.max);
    if let Some(base) = fields.get("base").and_then(|node| reader.span(node)) {
        policy.base = base;
        policy.cap = policy.cap.max(base);
    }
    if let Some(node) = fields.get("cap") {
        policy.cap = reader.span(node).unwrap_or(policy.cap);
        if policy.cap < policy.base {
            reader.problem(node, "is shorter than base");
        }
    }
    if let Some(node) = fields.get("on") {
        policy.on = failures(reader, node);
    }
    policy
}

fn cache<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<CachePolicy> {
    if let Shape::Map(_) = node.value {
        let fields = reader.fields(node, &keys::CACHE)?;
        return reader.word(fields.get("key")?, &[("seed-v2.1", CachePolicy::SeedV21)]);
    }
    Some(if reader.flag(node)? { CachePolicy::On } else { CachePolicy::Off })
}

fn effect<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> Effect {
    let words = [("none", Effect::None), ("external", Effect::External)];
    fields.get("effect").and_then(|node| reader.word(node, &words)).unwrap_or_default()
}

fn pools<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>, surroundings: &Surroundings) -> Vec<String> {
    let mut pools = Vec::new();
    for item in one_or_more(node) {
        let Some(name) = reader.text(item) else { continue };
        if !surroundings.pools.iter().any(|pool| pool == name) {
            let message = format!("\"{name}\" is no pool of limits.pools");
            match reader.nearest(name, surroundings.pools.iter().map(String::as_str)) {
                Some(near) => reader.hinted(item, message, did_you_mean(near)),
                None => reader.hinted(item, message, format!("limits: {{ pools: {{ {name}: 1 }} }}")),
            }
        } else if !pools.iter().any(|pool| pool == name) {
            pools.push(name.to_owned());
        }
    }
    pools
}

fn secrets<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Vec<String> {
    let mut secrets = Vec::new();
    for item in reader.list(node) {
        let Some(name) = reader.text(item) else { continue };
        if !is_identifier(name) {
            reader.problem(item, format!("\"{name}\" cannot name an environment variable"));
        }
        secrets.push(name.to_owned());
    }
    secrets
}

fn files<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Vec<FileRule> {
    let rules: Vec<_> = reader.list(node).iter().map(|node| file(reader, node)).collect();
    rules.into_iter().flatten().collect()
}

fn file<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<FileRule> {
    let fields = reader.fields(node, &keys::FILE)?;
    let path = fields.get("path").and_then(|node| {
        let path = reader.template(node)?;
        if path.is_literal()
            && let Some(fault) = path_fault(path.source())
        {
            reader.problem(node, format!("\"{}\" {fault}", path.source()));
        }
        Some(path)
    });
    let from = match fields.get("from") {
        Some(node) => source(reader, node),
        None => Some(FileSource::Text),
    };
    let words = [
        ("create_new", WriteMode::CreateNew),
        ("overwrite", WriteMode::Overwrite),
        ("append", WriteMode::Append),
    ];
    let mode = fields.get("mode").and_then(|node| reader.word(node, &words)).unwrap_or_default();
    Some(FileRule { path: path?, from: from?, mode })
}

/// What can be said of a path before anything runs. The store of files judges every path again.
fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.ends_with('/') {
        Some("names no file")
    } else if path.starts_with(['/', '~']) || path.contains([':', '\\', '\0']) {
        Some("is no path below outputs/; parts are joined by /")
    } else if path.split('/').any(|part| part == "..") {
        Some("leads out of outputs/")
    } else {
        None
    }
}

fn source<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<FileSource> {
    let text = reader.text(node)?;
    if let Some(path) = text.strip_prefix("file:") {
        if let Some(fault) = path_fault(path) {
            reader.problem(node, format!("\"{path}\" {fault}"));
        }
        return Some(FileSource::Working(path.to_owned()));
    }
    let mut parts = text.split('.');
    let fields: Vec<String> =
        if parts.next() == Some("output") { parts.map(str::to_owned).collect() } else { Vec::new() };
    if fields.is_empty() || fields.iter().any(String::is_empty) {
        let hint = "output.text, output.code, output.json, output.<field>, file:<path>";
        reader.hinted(node, format!("\"{text}\" is no part of the output"), hint);
        return None;
    }
    Some(match (fields[0].as_str(), fields.len()) {
        ("text", 1) => FileSource::Text,
        ("code", 1) => FileSource::Code,
        ("json", _) => FileSource::Json(fields[1..].to_vec()),
        _ => FileSource::Json(fields),
    })
}

/// Whether a step's kind can be told, and which it is.
pub(super) fn kind_of<'d>(
    reader: &mut Reader<'d>,
    fields: Fields<'d>,
) -> Option<(&'static str, &'d Node<'d>)> {
    let written: Vec<_> =
        keys::KINDS.iter().filter_map(|kind| fields.written(kind).map(|node| (*kind, node))).collect();
    match written.as_slice() {
        [one] => return Some(*one),
        [] => reader.problem(fields.node, format!("needs what it does: one of {}", keys::KINDS.join(", "))),
        [_, (second, node), ..] => {
            let (first, _) = written[0];
            reader.problem(node, format!("a step is one thing; this one is {first} and {second}"));
        }
    }
    None
}
