//! `jobs`: every run of the home, or of a server elsewhere, newest first.

use orch_api::JobSummary;
use orch_core::{Failure, UnixMicros};
use orchestratord::client::DaemonClient;
use orchestratord::daemon_file;
use workflow::{RunStatus, RunSummary, Runs, owner_file};

use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::block_on;
use crate::words::{or_dash, show_seconds};

const HEADINGS: [&str; 7] = ["JOB", "PROJECT", "STATUS", "STEPS", "TOKENS", "STARTED", "DURATION"];
/// So many of a server's are listed.
const LISTED: usize = 1000;
/// Of a moment: what people need.
const TO_THE_SECOND: usize = "2026-01-31T12:00:00".len();

pub(super) fn run(context: &Context) -> CommandResult {
    if let Some(client) = context.named_server()? {
        return elsewhere(context, &client);
    }
    let runs = Runs::new(context.home()?.runs());
    let (rows, troubles) = runs.list(UnixMicros::now()).map_err(Failure::from)?;
    context.warn(&troubles);
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    show(context, rows.iter().map(Row::of_run))?;
    tell_of_interrupted(context, &runs, &rows)
}

/// How the interrupted ones go on.
fn tell_of_interrupted(context: &Context, runs: &Runs, rows: &[RunSummary]) -> CommandResult {
    let is_submitted = |row: &RunSummary| owner_file(&runs.root().join(&row.job_id)).is_file();
    let has_daemon = daemon_file::living(context.home()?).is_some();
    let interrupted = rows.iter().filter(|row| row.status == RunStatus::Interrupted);
    let (served, left): (Vec<_>, Vec<_>) = interrupted.partition(|row| !has_daemon && is_submitted(row));
    if let Some(left) = left.first() {
        context.talk.note(&format!(
            "an interrupted job has lost its process; what is done stays done: llama-orch run --resume {}",
            left.job_id
        ));
    }
    if let Some(served) = served.first() {
        context.talk.note(&format!(
            "the daemon goes on with {} by itself when it is started: llama-orch daemon start",
            served.job_id
        ));
    }
    Ok(())
}

fn elsewhere(context: &Context, client: &DaemonClient) -> CommandResult {
    let rows = block_on(client.jobs(LISTED))?;
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    show(context, rows.iter().map(Row::of_job))
}

fn show<'a>(context: &Context, rows: impl Iterator<Item = Row<'a>>) -> CommandResult {
    Ok(context.printer.table(&HEADINGS, &rows.map(Row::cells).collect::<Vec<_>>())?)
}

/// A job as people read it, wherever it runs.
struct Row<'a> {
    id: &'a str,
    project: &'a str,
    status: String,
    steps: String,
    tokens: u64,
    started_at: Option<&'a str>,
    duration_s: Option<f64>,
}

impl<'a> Row<'a> {
    fn of_run(run: &'a RunSummary) -> Self {
        Self {
            id: &run.job_id,
            project: &run.project,
            status: run.status.to_string(),
            steps: format!("{}/{}", run.steps_done, run.steps),
            tokens: run.tokens,
            started_at: run.started_at.as_deref(),
            duration_s: run.duration_s,
        }
    }

    fn of_job(job: &'a JobSummary) -> Self {
        Self {
            id: &job.job_id,
            project: &job.project,
            status: job.status.label().to_owned(),
            steps: format!("{}/{}", job.steps_done, job.steps),
            tokens: job.tokens,
            started_at: job.started_at.as_deref(),
            duration_s: job.duration_s,
        }
    }

    fn cells(self) -> Vec<String> {
        let to_the_second = |moment: &str| format!("{}Z", moment.get(..TO_THE_SECOND).unwrap_or(moment));
        vec![
            self.id.to_owned(),
            self.project.to_owned(),
            self.status,
            self.steps,
            self.tokens.to_string(),
            or_dash(self.started_at.map(to_the_second)),
            or_dash(self.duration_s.map(show_seconds)),
        ]
    }
}
