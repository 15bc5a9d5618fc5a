//! `graph`: a workflow's steps and what they need, without running anything.

use serde_json::{Value, json};
use workflow_spec::{Graph, StepKind};

use super::workflow_text::read_spec;
use crate::arguments::{GraphArguments, GraphFormat};
use crate::context::Context;
use crate::ending::CommandResult;

pub(super) fn run(context: &Context, arguments: &GraphArguments) -> CommandResult {
    let spec = read_spec(context, &arguments.spec)?;
    if context.printer.json() {
        let document = json!({ "project": spec.project, "steps": steps(&spec.graph) });
        return Ok(context.printer.document(&document)?);
    }
    Ok(context.printer.text(&match arguments.format {
        GraphFormat::Text => spec.graph.as_text(),
        GraphFormat::Dot => spec.graph.as_dot(&spec.project),
    })?)
}

/// The steps in the order of the file, bodies inside of their steps.
fn steps(graph: &Graph) -> Vec<Value> {
    let levels = graph.levels();
    let one = |(index, step): (usize, &std::sync::Arc<workflow_spec::Step>)| {
        let needs: Vec<&str> = step.needs.iter().map(|need| graph.steps[*need].id.as_str()).collect();
        let mut shown =
            json!({ "id": step.id, "kind": step.kind.word(), "level": levels[index] + 1, "needs": needs });
        match &step.kind {
            StepKind::Loop(repeated) => shown["steps"] = steps(&repeated.body).into(),
            StepKind::Workflow(workflow) => shown["steps"] = steps(&workflow.spec.graph).into(),
            _ => {}
        }
        shown
    };
    graph.steps.iter().enumerate().map(one).collect()
}
