//! `plan`: what a run would find done and what it would have to do, with the tokens and the time that it is likely to
//! take. Reads only.

use std::sync::Arc;

use orch_core::{Failure, UnixMicros};
use orchestratord::daemon_file;
use orchestratord::jobs::LOCAL;

use serde::Serialize;
use serde_json::{Map, Value};
use workflow::{
    Estimate, Forecast, Job, JobId, JobOptions, Outlook, PastSteps, Runs, StepEstimate, StepForecast, Store,
    forecast,
};
use workflow_spec::{Graph, JobSpec, StepKind};

use super::surroundings::surroundings;
use super::workflow_text::{read_spec, typed_inputs};
use crate::arguments::PlanArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::words::{counted, or_dash, show_seconds, with_commas};

/// So many earlier runs of the project are looked at.
const RUNS_LEARNT_FROM: usize = 10;

/// What was typed that decides whom a step asks.
pub(super) struct Asked<'a> {
    pub(super) provider: Option<&'a str>,
    pub(super) concurrency: Option<u32>,
}

#[derive(Serialize)]
struct Told<'a> {
    project: &'a str,
    steps: Vec<Row<'a>>,
    totals: Totals<'a>,
}

#[derive(Serialize)]
struct Row<'a> {
    step: &'a str,
    outlook: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    until: Vec<&'a str>,
    key: Option<&'a str>,
    /// Null where no earlier run tells.
    tokens: Option<u64>,
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct Totals<'a> {
    hits: usize,
    misses: usize,
    unknown: usize,
    tokens: u64,
    /// On the critical path.
    duration_s: f64,
    critical_path: &'a [String],
    /// Some steps were never made before: it takes more.
    is_least: bool,
}

pub(super) fn run(context: &Context, arguments: &PlanArguments) -> CommandResult {
    let spec = read_spec(context, &arguments.spec)?;
    let inputs = typed_inputs(context, &spec, &arguments.inputs.vars, Map::new())?;
    let asked = Asked { provider: arguments.provider.as_deref(), concurrency: arguments.concurrency };
    let (forecast, spec, _) = foresee(context, spec, inputs, &asked)?;
    let past = past_steps(&Runs::new(context.home()?.runs()), &spec.project)?;
    let estimate = forecast.estimate(&spec.graph, &past);
    let told = told(&spec, &forecast, &estimate);
    if context.printer.json() {
        return Ok(context.printer.document(&told)?);
    }
    show(context, &forecast, &estimate, &told.totals)
}

/// The forecast of a workflow, with the workflow as it would run and whom it asks by default.
pub(super) fn foresee(
    context: &Context,
    spec: JobSpec,
    inputs: Map<String, Value>,
    asked: &Asked<'_>,
) -> Result<(Forecast, Arc<JobSpec>, String), Failure> {
    let (ports, provider) = surroundings(context, asked.provider, &spec)?;
    let spec = Arc::new(spec.with_model_input(&inputs));
    if names_no_model(&spec.graph, &provider) && context.server_access().is_none() && !daemon_lives(context)?
    {
        context.talk.warning(
            "the gateway of this home does not run, so which model is asked where a step names none is not known, \
             nor whether its result is stored (llama-orch daemon start)",
        );
    }
    let options =
        JobOptions { concurrency: asked.concurrency, provider: provider.clone(), ..JobOptions::default() };
    let job = Job { spec: spec.clone(), inputs, options };
    let store = Arc::new(Store::home(context.home()?.cache()));
    let forecast = block_on(async { Ok::<_, Failure>(forecast(job, store, ports).await?) })?;
    Ok((forecast, spec, provider))
}

fn daemon_lives(context: &Context) -> Result<bool, Failure> {
    Ok(daemon_file::living(context.home()?).is_some())
}

/// Whether a step asks the gateway for whatever model it serves first.
fn names_no_model(graph: &Graph, default: &str) -> bool {
    graph.steps.iter().any(|step| match &step.kind {
        StepKind::Llm(llm) => llm.candidates.iter().any(|candidate| {
            candidate.model.is_none() && candidate.provider.as_deref().unwrap_or(default) == LOCAL
        }),
        StepKind::Workflow(workflow) => names_no_model(&workflow.spec.graph, default),
        StepKind::Loop(repeated) => names_no_model(&repeated.body, default),
        StepKind::Run(_) | StepKind::Http(_) | StepKind::Gate(_) | StepKind::Pass(_) => false,
    })
}

/// What steps took in the newest runs of the project.
fn past_steps(runs: &Runs, project: &str) -> Result<PastSteps, Failure> {
    let mut past = PastSteps::default();
    let (rows, _) = runs.list(UnixMicros::now())?;
    for row in rows.iter().filter(|row| row.project == project).take(RUNS_LEARNT_FROM) {
        // A run that cannot be read has nothing to tell.
        let Ok(id) = JobId::new(&row.job_id) else { continue };
        if let Ok(view) = runs.view(&id) {
            past.learn(&view.manifest);
        }
    }
    Ok(past)
}

fn told<'a>(spec: &'a JobSpec, forecast: &'a Forecast, estimate: &'a Estimate) -> Told<'a> {
    let count = |word: &str| forecast.steps.iter().filter(|step| step.outlook.word() == word).count();
    Told {
        project: &spec.project,
        steps: forecast
            .steps
            .iter()
            .zip(&estimate.steps)
            .map(|(step, estimate)| row(step, estimate))
            .collect(),
        totals: Totals {
            hits: count("hit"),
            misses: count("miss"),
            unknown: count("unknown"),
            tokens: estimate.tokens,
            duration_s: estimate.duration_s,
            critical_path: &estimate.critical_path,
            is_least: estimate.is_least,
        },
    }
}

fn row<'a>(step: &'a StepForecast, estimate: &StepEstimate) -> Row<'a> {
    let (until, message) = match &step.outlook {
        Outlook::Unknown { until } => (until.iter().map(String::as_str).collect(), None),
        Outlook::Fails { message, .. } => (Vec::new(), Some(message.as_str())),
        _ => (Vec::new(), None),
    };
    Row {
        step: &step.id,
        outlook: step.outlook.word(),
        until,
        key: step.key.as_deref(),
        tokens: estimate.tokens,
        duration_s: estimate.duration_s,
        message,
    }
}

fn show(context: &Context, forecast: &Forecast, estimate: &Estimate, totals: &Totals<'_>) -> CommandResult {
    let rows: Vec<Vec<String>> = forecast
        .steps
        .iter()
        .zip(&estimate.steps)
        .map(|(step, estimate)| {
            vec![
                step.id.clone(),
                show_outlook(&step.outlook),
                or_dash(estimate.tokens.map(with_commas)),
                or_dash(estimate.duration_s.map(show_seconds)),
            ]
        })
        .collect();
    context.printer.table(&["STEP", "RESULT", "TOKENS", "TIME"], &rows)?;
    let least = if totals.is_least { "at least " } else { "" };
    let path = totals.critical_path.join(" -> ");
    let by = if path.is_empty() { String::new() } else { format!(", by way of {path}") };
    context.printer.pairs(&[
        ("known", format!("{} of {}", totals.hits, counted(forecast.steps.len(), "step"))),
        ("to do", to_do(forecast, totals)),
        ("tokens", format!("{least}{}", with_commas(totals.tokens))),
        ("time", format!("{least}{}{by}", show_seconds(totals.duration_s))),
    ])?;
    Ok(())
}

fn to_do(forecast: &Forecast, totals: &Totals<'_>) -> String {
    let values = forecast.steps.iter().filter(|step| step.outlook == Outlook::Value).count();
    if values > 0 && forecast.steps.iter().all(|step| step.outlook.is_free()) {
        return format!("nothing that takes tokens or time; {} of values", counted(values, "step"));
    }
    format!("{}, then {} more", counted(totals.misses, "step"), totals.unknown)
}

/// What would become of a step, in a few words.
pub(super) fn show_outlook(outlook: &Outlook) -> String {
    match outlook {
        Outlook::Unknown { until } if until.is_empty() => "unknown".to_owned(),
        Outlook::Unknown { until } => format!("unknown until {}", some_of(until)),
        Outlook::Fails { kind, message } => format!("fails, {kind}: {message}"),
        other => other.word().to_owned(),
    }
}

fn some_of(steps: &[String]) -> String {
    const MOST_NAMED: usize = 3;
    let more = if steps.len() > MOST_NAMED { " …" } else { "" };
    steps.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ") + more
}
