//! `show`: one run: its steps, what they took, and what to do next.

use std::collections::HashMap;

use orch_core::{ByteCount, ExitCode, Failure, UnixMicros};
use serde_json::{Value, json};
use workflow::{FileState, JobId, JournalLine, RunStatus, RunView, Runs, StepState, StepStatus, TailError};

use super::decide::served_by;
use super::jobs_elsewhere;
use super::journal_words::shown;
use crate::arguments::ShowArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::words::{command_line, or_dash, show_seconds};

const STEP_HEADINGS: [&str; 7] = ["STEP", "STATUS", "ATTEMPTS", "CACHE", "TOKENS", "DURATION", "FAILURE"];
const FILE_HEADINGS: [&str; 4] = ["FILE", "SIZE", "TYPE", "SHA256"];
/// Of a digest: what tells files apart.
const SHOWN_DIGITS: usize = 12;

pub(super) fn run(context: &Context, arguments: &ShowArguments) -> CommandResult {
    if let Some(client) = context.named_server()? {
        return jobs_elsewhere::show(context, &client, arguments);
    }
    let runs = Runs::new(context.home()?.runs());
    let id = runs.find(&arguments.job_id, UnixMicros::now()).map_err(Failure::from)?;
    let view = runs.view(&id).map_err(Failure::from)?;
    let events = if arguments.events { events(&runs, &id, &view)? } else { Vec::new() };
    if context.printer.json() {
        let document = document(&view, &next(context, &view)?, arguments.events.then_some(&events));
        context.printer.document(&document)?;
    } else {
        show(context, arguments, &view, &events)?;
    }
    match view.damaged_line {
        None => Ok(()),
        Some(line) => {
            context.talk.warning(&format!(
                "line {line} of {} is damaged: what came after it is not shown",
                view.path.join("events.jsonl").display()
            ));
            Err(Ended::Told(ExitCode::StateUnusable))
        }
    }
}

/// All events; those before the damage where there is some.
fn events(runs: &Runs, id: &JobId, view: &RunView) -> Result<Vec<JournalLine>, Failure> {
    let mut tail = runs.tail(id);
    let mut events = Vec::new();
    loop {
        match tail.read() {
            Ok(lines) if lines.is_empty() => return Ok(events),
            Ok(lines) => events.extend(lines),
            Err(TailError::Damaged { .. }) if view.damaged_line.is_some() => return Ok(events),
            Err(error) => return Err(error.into()),
        }
    }
}

fn document(view: &RunView, next: &[String], events: Option<&Vec<JournalLine>>) -> Value {
    let mut document = view.to_json(UnixMicros::now());
    document["next"] = json!(next);
    if let Some(events) = events {
        let parsed = |line: &JournalLine| serde_json::from_str::<Value>(&line.text).unwrap_or_default();
        document["events"] = events.iter().map(parsed).collect();
    }
    document
}

fn show(
    context: &Context,
    arguments: &ShowArguments,
    view: &RunView,
    events: &[JournalLine],
) -> CommandResult {
    let printer = context.printer;
    let manifest = &view.manifest;
    printer.table(&STEP_HEADINGS, &in_families(manifest.steps()).map(step_cells).collect::<Vec<_>>())?;
    printer.line("")?;
    printer.pairs(&totals(view))?;
    if arguments.files && !manifest.files().is_empty() {
        printer.line("")?;
        printer.table(&FILE_HEADINGS, &manifest.files().iter().map(file_cells).collect::<Vec<_>>())?;
    }
    if arguments.events && !events.is_empty() {
        printer.line("")?;
        for event in events {
            printer.line(shown(context, event))?;
        }
    }
    let next = next(context, view)?;
    if !next.is_empty() {
        printer.line("")?;
        for command in next {
            printer.line(format!("next: {command}"))?;
        }
    }
    Ok(())
}

/// Each step of the workflow, and behind it those that it was expanded to.
fn in_families(steps: &[StepState]) -> impl Iterator<Item = &StepState> {
    let planned = steps.iter().filter(|step| step.is_planned).enumerate();
    let places: HashMap<&str, usize> = planned.map(|(place, step)| (step.id.as_str(), place)).collect();
    let family = |step: &StepState| {
        let own = step.id.split(['[', '#', '/']).next().unwrap_or_default();
        places.get(own).copied().unwrap_or(usize::MAX)
    };
    let mut sorted: Vec<&StepState> = steps.iter().collect();
    sorted.sort_by_key(|step| family(step));
    sorted.into_iter()
}

fn step_cells(step: &StepState) -> Vec<String> {
    vec![
        step.id.clone(),
        step.status.word().to_owned(),
        step.attempts.to_string(),
        or_dash(step.cache.map(workflow::CacheUse::word)),
        step.tokens.to_string(),
        or_dash(step.duration_s.map(show_seconds)),
        why(step),
    ]
}

/// Why a step is not what one would wish: the kind of its failure, why it was not run, or where its answer was cut.
fn why(step: &StepState) -> String {
    let failure = step.failure.as_ref().filter(|_| step.status != StepStatus::Succeeded);
    if let Some(failure) = failure {
        return or_dash(failure.kind);
    }
    if let Some(tokens) = step.cut_at {
        return format!("cut at {tokens} tokens");
    }
    or_dash(step.skipped.as_ref())
}

fn file_cells(file: &FileState) -> Vec<String> {
    vec![
        file.path.clone(),
        ByteCount(file.size_bytes).to_string(),
        or_dash(file.media_type.as_ref()),
        file.sha256.get(..SHOWN_DIGITS).unwrap_or(&file.sha256).to_owned(),
    ]
}

fn totals(view: &RunView) -> Vec<(&'static str, String)> {
    let manifest = &view.manifest;
    let (done, all) = manifest.progress();
    let usage = manifest.usage;
    let mut totals = vec![
        ("job", view.id.to_string()),
        ("project", manifest.project.clone()),
        ("status", status(view)),
        ("steps", format!("{done} of {all} done")),
        ("tokens", format!("{} ({} in, {} out)", usage.total(), usage.prompt, usage.completion)),
        ("duration", or_dash(view.duration_s(UnixMicros::now()).map(show_seconds))),
        ("files", manifest.files().len().to_string()),
        ("folder", view.path.display().to_string()),
    ];
    if let Some(error) = &manifest.error {
        totals.insert(3, ("error", plain(error)));
    }
    for step in manifest.failed_steps() {
        if let Some(failure) = &step.failure {
            totals.push(("failed", plain(&format!("{}: {}", step.id, failure.message))));
        }
    }
    for (step, question) in questions(view) {
        totals.push((
            "asks",
            plain(&format!("{step}: {} ({})", question.message, question.choices.join(", "))),
        ));
    }
    totals
}

fn status(view: &RunView) -> String {
    match &view.holder {
        Some(holder) => format!("{} by {holder}", view.status),
        None => view.status.to_string(),
    }
}

fn questions(view: &RunView) -> impl Iterator<Item = (&str, &workflow::Question)> {
    let steps = view.manifest.steps().iter();
    steps.filter_map(|step| step.question.as_ref().map(|question| (step.id.as_str(), question)))
}

/// Commands that lead on from here. None gets past a damaged journal.
fn next(context: &Context, view: &RunView) -> Result<Vec<String>, Failure> {
    if view.damaged_line.is_some() {
        return Ok(Vec::new());
    }
    let id = view.id.as_str();
    let mut next: Vec<String> = questions(view)
        .map(|(step, question)| {
            let choice = question.choices.first().map_or("approve", String::as_str);
            command_line(&["llama-orch", "decide", id, step, choice])
        })
        .collect();
    match view.status {
        RunStatus::Queued | RunStatus::Running if next.is_empty() => {
            next.push(command_line(&["llama-orch", "tail", "-f", id]));
        }
        // The daemon goes on with its own by itself.
        RunStatus::Waiting if served_by(context, view)?.is_some() => {}
        RunStatus::Interrupted | RunStatus::Waiting | RunStatus::Failed | RunStatus::Cancelled => {
            next.push(command_line(&["llama-orch", "run", "--resume", id]));
        }
        RunStatus::Queued | RunStatus::Running | RunStatus::Succeeded => {}
    }
    Ok(next)
}

/// On its line, whatever a model put into it.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}
