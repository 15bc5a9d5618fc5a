//! `jobs`: every run of the home, newest first.

use orch_core::{Failure, UnixMicros};
use workflow::{RunStatus, RunSummary, Runs};

use super::jobs_elsewhere;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::words::{or_dash, show_seconds};

pub(super) const HEADINGS: [&str; 7] = ["JOB", "PROJECT", "STATUS", "STEPS", "TOKENS", "STARTED", "DURATION"];
/// Of a moment: what people need.
const TO_THE_SECOND: usize = "2026-01-31T12:00:00".len();

pub(super) fn run(context: &Context) -> CommandResult {
    if let Some(client) = context.named_server()? {
        return jobs_elsewhere::list(context, &client);
    }
    let (rows, troubles) =
        Runs::new(context.home()?.runs()).list(UnixMicros::now()).map_err(Failure::from)?;
    context.warn(&troubles);
    if context.printer.json() {
        return Ok(context.printer.document(&rows)?);
    }
    context.printer.table(&HEADINGS, &rows.iter().map(cells).collect::<Vec<_>>())?;
    if let Some(left) = rows.iter().find(|row| row.status == RunStatus::Interrupted) {
        context.talk.note(&format!(
            "an interrupted job has lost its process; what is done stays done: llama-orch run --resume {}",
            left.job_id
        ));
    }
    Ok(())
}

fn cells(row: &RunSummary) -> Vec<String> {
    let to_the_second = |moment: &String| format!("{}Z", moment.get(..TO_THE_SECOND).unwrap_or(moment));
    vec![
        row.job_id.clone(),
        row.project.clone(),
        row.status.to_string(),
        format!("{}/{}", row.steps_done, row.steps),
        row.tokens.to_string(),
        or_dash(row.started_at.as_ref().map(to_the_second)),
        or_dash(row.duration_s.map(show_seconds)),
    ]
}
