//! What is told when a job has ended.

use std::path::Path;

use orch_core::{ExitCode, Failure};
use workflow::{JobEnd, JobOutcome, Manifest, StepState, StepStatus};

use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::words::{counted, quoted, show_seconds, with_commas};

/// More files or failures than these are counted, not listed.
pub(super) const MOST_LISTED: usize = 20;

/// Status, time, tokens, files, and what can be done next; then the code.
pub(super) fn tell(context: &Context, folder: &Path, end: &JobEnd) -> CommandResult {
    let manifest = &end.manifest;
    let json = context.printer.json();
    let printed = if json { Ok(()) } else { context.printer.pairs(&summary(manifest, folder)) };
    for failure in failures(end) {
        context.talk.failure(&failure);
    }
    if let Some(more) = failed_more(end) {
        context.talk.text(&format!("{more}\n"));
    }
    // How the job ended is told also where nobody reads it any more: a closed terminal is one way to end it.
    Ended::told(exit_code(end.outcome))?;
    Ok(printed?)
}

const fn exit_code(outcome: JobOutcome) -> ExitCode {
    match outcome {
        JobOutcome::Succeeded => ExitCode::Success,
        JobOutcome::Failed => ExitCode::JobFailed,
        JobOutcome::Cancelled | JobOutcome::Paused => ExitCode::Interrupted,
        JobOutcome::Waiting => ExitCode::JobAtGate,
    }
}

fn summary(manifest: &Manifest, folder: &Path) -> Vec<(&'static str, String)> {
    let (done, all) = manifest.progress();
    let status = manifest.status.unwrap_or_default().word();
    let mut pairs = vec![
        ("job", manifest.job_id.clone()),
        ("status", format!("{status}, {done} of {}", counted(all, "step"))),
    ];
    if let Some(duration) = manifest.duration_s() {
        pairs.push(("duration", show_seconds(duration)));
    }
    pairs.push(("tokens", tokens(manifest)));
    if manifest.from_cache > 0 {
        pairs.push(("from cache", counted(manifest.from_cache as usize, "step")));
    }
    pairs.extend(gone_without(manifest).map(|text| ("failed", text)));
    let outputs = folder.join("outputs").join(&manifest.project);
    let files = manifest.files();
    pairs.extend(
        files.iter().take(MOST_LISTED).map(|file| ("file", outputs.join(&file.path).display().to_string())),
    );
    if files.len() > MOST_LISTED {
        let more = more(files.len() - MOST_LISTED);
        pairs.push(("files", format!("{more} (llama-orch show {} --files)", quoted(&manifest.job_id))));
    }
    pairs.extend(next(manifest).into_iter().map(|command| ("next", command)));
    pairs
}

/// What failed of a job that succeeded nevertheless.
fn gone_without(manifest: &Manifest) -> Option<String> {
    let failed = manifest.failed_steps().count();
    let show = || format!("llama-orch show {}", quoted(&manifest.job_id));
    (manifest.status == Some(workflow::JobStatus::Succeeded) && failed > 0)
        .then(|| format!("{} that the job went on without ({})", counted(failed, "step"), show()))
}

fn more(count: usize) -> String {
    format!("… and {} more", with_commas(count as u64))
}

fn tokens(manifest: &Manifest) -> String {
    let usage = manifest.usage;
    let both = format!("{} in, {} out", with_commas(usage.prompt), with_commas(usage.completion));
    format!("{} ({both})", with_commas(usage.total()))
}

/// What a person may want to type now.
fn next(manifest: &Manifest) -> Vec<String> {
    use workflow::JobStatus::{Cancelled, Failed, Succeeded, Waiting};
    let job = quoted(&manifest.job_id);
    match manifest.status.unwrap_or_default() {
        Succeeded => vec![format!("llama-orch show {job}")],
        Waiting => {
            let decisions = gates(manifest)
                .map(|(step, choices)| format!("llama-orch decide {job} {} {choices}", quoted(&step.id)));
            decisions.take(MOST_LISTED).chain([format!("llama-orch run --resume {job}")]).collect()
        }
        Failed | Cancelled | workflow::JobStatus::Running => {
            vec![format!("llama-orch show {job}"), format!("llama-orch run --resume {job}")]
        }
    }
}

/// Steps that wait for a decision, with the words that decide.
fn gates(manifest: &Manifest) -> impl Iterator<Item = (&StepState, String)> {
    let waiting = manifest.steps().iter().filter(|step| step.status == StepStatus::Waiting);
    waiting.filter_map(|step| Some((step, step.question.as_ref()?.choices.join("|"))))
}

/// How many failures are not listed, and where they are.
fn failed_more(end: &JobEnd) -> Option<String> {
    let failed = end.manifest.failed_steps().count();
    let is_cut = end.outcome == JobOutcome::Failed && failed > MOST_LISTED;
    let show = || format!("llama-orch show {}", quoted(&end.manifest.job_id));
    is_cut.then(|| format!("{} ({})", more(failed - MOST_LISTED), show()))
}

/// Why the job did not succeed: each failed step, or what ended the job besides.
fn failures(end: &JobEnd) -> Vec<Failure> {
    let manifest = &end.manifest;
    if end.outcome != JobOutcome::Failed {
        return Vec::new();
    }
    let told = |step: &StepState| {
        let failure = step.failure.as_ref();
        let kind = failure.and_then(|failure| failure.kind).map_or("failed", |kind| kind.word());
        let message = failure.map_or("", |failure| &failure.message);
        Failure::new(ExitCode::JobFailed, format!("step {}: {kind}: {message}", step.id))
    };
    let mut failures: Vec<Failure> = manifest.failed_steps().take(MOST_LISTED).map(told).collect();
    if failures.is_empty() {
        let why = manifest.error.as_deref().unwrap_or("it tells no reason");
        failures.push(Failure::new(ExitCode::JobFailed, format!("the job failed: {why}")));
    }
    failures
}
