//! The keys of the document itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::link::{self, RawStep};
use super::reader::{Fields, Reader, one_or_more};
use super::{Shelf, is_identifier, is_name, step};
use crate::document::{Node, Shape};
use crate::keys;
use crate::problems::did_you_mean;
use crate::{
    Budget, Candidate, FailureKind, InputDeclaration, InputType, JobLimits, JobSpec, OnError, OnExceed,
};

pub(super) const INPUT_TYPES: &[(&str, InputType)] = &[
    ("string", InputType::String),
    ("integer", InputType::Integer),
    ("number", InputType::Number),
    ("boolean", InputType::Boolean),
    ("json", InputType::Json),
    ("file", InputType::File),
    ("files", InputType::Files),
];

pub(super) const ON_ERROR: &[(&str, OnError)] =
    &[("drain", OnError::Drain), ("cancel", OnError::Cancel), ("continue", OnError::Continue)];

/// What steps may name, read before them.
pub(super) struct Surroundings {
    pub(super) models: HashMap<String, Arc<[Candidate]>>,
    pub(super) pools: Vec<String>,
    pub(super) budget_gate: bool,
}

pub(super) fn read(reader: &mut Reader<'_>, shelf: &mut Shelf<'_>, way: &mut Vec<String>) -> Option<JobSpec> {
    let root = reader.root;
    if root.is_null() {
        reader.problem(root, "is empty; a spec has at least project and steps");
        return None;
    }
    let fields = reader.document_fields(root)?;
    if let Some(version) = fields.get("version") {
        reader.count(version, 1, 1);
    }
    let project = fields.get("project").and_then(|node| project(reader, node));
    let inputs = inputs(reader, fields);
    let limits = limits(reader, fields);
    let budget = fields.get("budget").and_then(|node| budget(reader, node));
    let surroundings = Surroundings {
        models: models(reader, fields),
        pools: limits.pools.keys().cloned().collect(),
        budget_gate: budget.is_some_and(|budget| budget.on_exceed == OnExceed::Gate),
    };
    let provider = fields.get("provider").and_then(|node| provider(reader, node));
    let on_error = fields.get("on_error").and_then(|node| reader.word(node, ON_ERROR)).unwrap_or_default();
    let raws = match fields.get("steps") {
        Some(node) => step::read_all(reader, node, &surroundings, shelf, way),
        None => Vec::new(),
    };
    let graph = finish(reader, fields, raws, &inputs)?;
    Some(JobSpec {
        project: project?,
        inputs,
        provider,
        limits,
        budget,
        on_error,
        graph,
        source: String::new(),
        sha256: String::new(),
        parts: BTreeMap::new(),
        warnings: Vec::new(),
    })
}

fn finish<'d>(
    reader: &mut Reader<'d>,
    fields: Fields<'d>,
    raws: Vec<RawStep<'d>>,
    inputs: &BTreeMap<String, InputDeclaration>,
) -> Option<crate::Graph> {
    let steps = fields.get("steps")?;
    if raws.is_empty() && reader.errors.is_empty() {
        reader.problem(steps, "needs at least one step");
        return None;
    }
    let graph = link::link_document(reader, raws, inputs)?;
    let expanded = graph.expanded();
    if expanded > super::MOST_STEPS as u64 {
        let most = super::MOST_STEPS;
        reader.problem(steps, format!("has more than {most} steps, those of loops and workflows among them"));
        return None;
    }
    Some(graph)
}

impl<'d> Reader<'d> {
    /// The keys of the document: those that begin with `x-` are the writer's own.
    fn document_fields(&mut self, root: &'d Node<'d>) -> Option<Fields<'d>> {
        self.fields_beside(root, &keys::SPEC, |key| key.starts_with("x-"))
    }
}

/// The name of a job and of its folder.
pub(super) fn project(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let Shape::Text { text, .. } = &node.value else {
        reader.problem(node, format!("needs text, not {}", node.kind()));
        return None;
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let good = (1..=64).contains(&text.len()) && !text.starts_with('.') && text.chars().all(fits);
    if !good {
        let hint = "up to 64 letters, digits, _, - and ., not beginning with a .";
        reader.hinted(node, format!("\"{text}\" cannot name a project"), hint);
    }
    good.then(|| text.to_string())
}

pub(super) fn provider(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let Shape::Text { text, .. } = &node.value else {
        reader.problem(node, format!("needs a provider's name, not {}", node.kind()));
        return None;
    };
    if !is_name(text, 64) {
        reader.problem(node, format!("\"{text}\" cannot name a provider"));
    }
    Some(text.to_string())
}

fn inputs<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> BTreeMap<String, InputDeclaration> {
    let mut inputs = BTreeMap::new();
    let Some(node) = fields.get("inputs") else { return inputs };
    for entry in reader.named(node) {
        if !is_identifier(&entry.key) {
            let hint = "letters, digits and _, not beginning with a digit";
            reader.hinted(&entry.node, "cannot name an input", hint);
        }
        if let Some(input) = input(reader, &entry.node) {
            inputs.insert(entry.key.to_string(), input);
        }
    }
    inputs
}

fn input<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<InputDeclaration> {
    if let Shape::Text { .. } = node.value {
        let kind = reader.word(node, INPUT_TYPES)?;
        return Some(InputDeclaration { kind, required: true, default: None, description: None });
    }
    let fields = reader.fields(node, &keys::INPUT)?;
    let kind = match fields.get("type") {
        Some(node) => reader.word(node, INPUT_TYPES)?,
        None => InputType::String,
    };
    let default = fields.get("default").map(|default| {
        if !kind.accepts(&default.to_json()) {
            reader.problem(default, format!("is no {}", kind.word()));
        }
        default.to_json()
    });
    let required = fields.get("required").and_then(|node| reader.flag(node)).unwrap_or(default.is_none());
    let description = fields.get("description").and_then(|node| reader.text(node)).map(str::to_owned);
    Some(InputDeclaration { kind, required, default, description })
}

fn models<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> HashMap<String, Arc<[Candidate]>> {
    let mut models = HashMap::new();
    let Some(node) = fields.get("models") else { return models };
    for entry in reader.named(node) {
        let nodes = one_or_more(&entry.node);
        let candidates: Vec<_> = nodes.iter().filter_map(|node| candidate(reader, node)).collect();
        if nodes.is_empty() {
            reader.problem(&entry.node, "needs at least one candidate");
        }
        models.insert(entry.key.to_string(), candidates.into());
    }
    models
}

fn candidate<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<Candidate> {
    if let Shape::Text { text, .. } = &node.value {
        let model = Some(text.to_string());
        return Some(Candidate { provider: None, model, options: Map::new(), on: Vec::new() });
    }
    let fields = reader.fields(node, &keys::CANDIDATE)?;
    Some(Candidate {
        provider: fields.get("provider").and_then(|node| provider(reader, node)),
        model: fields.get("model").and_then(|node| reader.text(node)).map(str::to_owned),
        options: fields.get("options").map(|node| options(reader, node)).unwrap_or_default(),
        on: fields.get("on").map(|node| failures(reader, node)).unwrap_or_default(),
    })
}

pub(super) fn options<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Map<String, Value> {
    reader.named(node).iter().map(|entry| (entry.key.to_string(), entry.node.to_json())).collect()
}

pub(super) fn failures<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Vec<FailureKind> {
    let words = FailureKind::ALL.map(|kind| (kind.word(), kind));
    let mut kinds = Vec::new();
    for item in reader.list(node) {
        kinds.extend(reader.word(item, &words).filter(|kind| !kinds.contains(kind)));
    }
    kinds
}

fn limits<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> JobLimits {
    let mut limits = JobLimits::default();
    let Some(fields) = fields.get("limits").and_then(|node| reader.fields(node, &keys::LIMITS)) else {
        return limits;
    };
    limits.steps = fields.get("steps").and_then(|node| reader.small_count(node, 1, 10_000));
    limits.wall = fields.get("wall").and_then(|node| reader.span(node));
    for (name, target) in [("providers", &mut limits.providers), ("models", &mut limits.models)] {
        let Some(node) = fields.get(name) else { continue };
        for entry in reader.named(node) {
            target.extend(in_flight(reader, &entry.node).map(|count| (entry.key.to_string(), count)));
        }
    }
    for entry in fields.get("pools").map_or(&[][..], |node| reader.named(node)) {
        if !is_name(&entry.key, 100) {
            reader.problem(&entry.node, "cannot name a pool");
        }
        let places = reader.small_count(&entry.node, 1, 10_000).unwrap_or(1);
        limits.pools.insert(entry.key.to_string(), places);
    }
    limits
}

fn in_flight<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<u32> {
    if let Shape::Number(_) = node.value {
        return reader.small_count(node, 1, 10_000);
    }
    let fields = reader.fields(node, &keys::IN_FLIGHT_LIMIT)?;
    fields.get("in_flight").and_then(|node| reader.small_count(node, 1, 10_000))
}

fn budget<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<Budget> {
    if let Shape::Number(_) = node.value {
        let tokens = reader.count(node, 1, u64::MAX)?;
        return Some(Budget { tokens, on_exceed: OnExceed::default() });
    }
    let fields = reader.fields(node, &keys::BUDGET)?;
    let words = [("fail", OnExceed::Fail), ("gate", OnExceed::Gate)];
    let on_exceed = fields.get("on_exceed").and_then(|node| reader.word(node, &words)).unwrap_or_default();
    let tokens = reader.count(fields.get("tokens")?, 1, u64::MAX)?;
    Some(Budget { tokens, on_exceed })
}

impl Surroundings {
    /// The candidates of a name of `models`; else the name is a model's own.
    pub(super) fn candidates<'d>(
        &self,
        reader: &mut Reader<'d>,
        node: &'d Node<'d>,
    ) -> Option<Arc<[Candidate]>> {
        let name = reader.text(node)?;
        if let Some(candidates) = self.models.get(name) {
            return Some(Arc::clone(candidates));
        }
        if let Some(near) = reader.nearest(name, self.models.keys().map(String::as_str)) {
            let message = format!("\"{name}\" is not among the models of this spec");
            let hint = format!("{} A model of that own name can be listed under models", did_you_mean(near));
            reader.hinted(node, message, hint);
        }
        Some(vec![Candidate { model: Some(name.to_owned()), ..Candidate::default() }].into())
    }
}
