//! The six-field spec of Unified Orchestrator v2.1: it becomes the workflow that it always meant.

use std::sync::Arc;
use std::time::Duration;

use super::reader::Reader;
use super::{Shelf, top};
use crate::JobSpec;
use crate::document::{self, Node, Place, Shape};
use crate::keys;
use crate::problems::SpecError;

/// architect → {builder, docs} → qa.
const BUILT_IN: &str = include_str!("six_fields.yaml");

/// Whether a document has six fields and no steps.
pub(super) fn is_one(root: &Node<'_>) -> bool {
    let Shape::Map(entries) = &root.value else { return false };
    let has = |name| entries.iter().any(|entry| entry.key == name);
    has("task_description") && !has("steps")
}

pub(super) fn read(reader: &mut Reader<'_>, shelf: &mut Shelf<'_>) -> Option<JobSpec> {
    let fields = reader.fields(reader.root, &keys::SIX_FIELDS)?;
    let project = fields.get("project").and_then(|node| top::project(reader, node));
    let task = fields.get("task_description").and_then(|node| reader.text(node));
    let provider = fields.get("provider").and_then(|node| top::provider(reader, node));
    let concurrency = fields.get("concurrency").and_then(|node| reader.small_count(node, 1, 10_000));
    let timeout = fields.get("timeout_s").and_then(|node| reader.count(node, 1, 31_536_000));
    let mut spec = built_in(shelf);
    spec.project = project?;
    spec.provider = provider;
    spec.limits.steps = concurrency;
    if let Some(input) = spec.inputs.get_mut("task") {
        input.default = Some(task?.into());
        input.required = false;
    }
    if let Some(seconds) = timeout {
        for step in &mut spec.graph.steps {
            Arc::make_mut(step).timeout = Duration::from_secs(seconds);
        }
    }
    if let Some(node) = fields.get("output_dir") {
        spec.warnings.push(unused_folder(node));
    }
    Some(spec)
}

fn built_in(shelf: &mut Shelf<'_>) -> JobSpec {
    let root = document::parse(BUILT_IN).expect("the built-in workflow is a document: a test reads it");
    let spec = shelf.read_node(&root, &mut vec![String::new()]);
    spec.expect("the built-in workflow is sound: a test reads it")
}

fn unused_folder(node: &Node<'_>) -> SpecError {
    let Place { line, column } = node.place;
    SpecError {
        file: String::new(),
        line,
        column,
        path: "output_dir".to_owned(),
        message: "is not used: the files of a run lie in runs/<job_id>/outputs/<project>/".to_owned(),
        hint: None,
    }
}
