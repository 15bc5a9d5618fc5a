//! `run --dry-run`: what would run, in which order, asked of whom. Nothing is written, and no work is asked for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Map;
use workflow::StepForecast;
use workflow_spec::{Graph, Step, StepKind};

use crate::arguments::RunArguments;
use crate::commands::plan::{Asked, foresee, show_outlook};
use crate::commands::workflow_text::{read_spec, typed_inputs};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::words::or_dash;

#[derive(Serialize)]
struct Row<'a> {
    step: &'a str,
    kind: &'static str,
    needs: Vec<&'a str>,
    /// `provider/model`, in the order in which they are asked.
    models: Vec<String>,
    /// Null where it cannot be told yet.
    key: Option<&'a str>,
    outlook: String,
}

pub(super) fn run(context: &Context, arguments: &RunArguments) -> CommandResult {
    let Some(name) = &arguments.spec else { return super::needs_spec("--dry-run") };
    let spec = read_spec(context, name)?;
    let inputs = typed_inputs(context, &spec, &arguments.inputs.vars, Map::new())?;
    let asked = Asked { provider: arguments.provider.as_deref(), concurrency: arguments.concurrency };
    let (forecast, spec, provider) = foresee(context, spec, inputs, &asked)?;
    let known: BTreeMap<&str, &StepForecast> =
        forecast.steps.iter().map(|step| (step.id.as_str(), step)).collect();
    let graph = &spec.graph;
    let rows: Vec<Row<'_>> =
        graph.order().into_iter().map(|at| row(graph, &graph.steps[at], &known, &provider)).collect();
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    Ok(context.printer.table(&["STEP", "KIND", "NEEDS", "ASKS", "KEY", "RESULT"], &cells)?)
}

fn row<'a>(
    graph: &'a Graph,
    step: &'a Step,
    known: &BTreeMap<&str, &'a StepForecast>,
    provider: &str,
) -> Row<'a> {
    let forecast = known.get(step.id.as_str());
    Row {
        step: &step.id,
        kind: kind(&step.kind),
        needs: step.needs.iter().map(|need| graph.steps[*need].id.as_str()).collect(),
        models: models(&step.kind, provider),
        key: forecast.and_then(|forecast| forecast.key.as_deref()),
        outlook: forecast.map_or_else(|| "unknown".to_owned(), |forecast| show_outlook(&forecast.outlook)),
    }
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let list = |items: Vec<&str>| or_dash(Some(items.join(", ")).filter(|text| !text.is_empty()));
    vec![
        row.step.to_owned(),
        row.kind.to_owned(),
        list(row.needs.clone()),
        list(row.models.iter().map(String::as_str).collect()),
        or_dash(row.key.map(|key| key.chars().take(12).collect::<String>())),
        row.outlook.clone(),
    ]
}

const fn kind(kind: &StepKind) -> &'static str {
    match kind {
        StepKind::Llm(_) => "llm",
        StepKind::Run(_) => "run",
        StepKind::Http(_) => "http",
        StepKind::Gate(_) => "gate",
        StepKind::Workflow(_) => "workflow",
        StepKind::Loop(_) => "loop",
        StepKind::Pass(_) => "pass",
    }
}

fn models(kind: &StepKind, provider: &str) -> Vec<String> {
    let StepKind::Llm(llm) = kind else { return Vec::new() };
    let named = |candidate: &workflow_spec::Candidate| {
        let provider = candidate.provider.as_deref().unwrap_or(provider);
        format!("{provider}/{}", candidate.model.as_deref().unwrap_or("(its first)"))
    };
    llm.candidates.iter().map(named).collect()
}
