//! `cancel`: ends a job.

use std::time::Duration;

use orch_core::{ExitCode, Failure, UnixMicros};
use serde_json::json;
use workflow::{RunStatus, RunView, Runs, TailError, forget_cancel, leave_cancel};

use super::decide::served_by;
use super::jobs_elsewhere;
use crate::arguments::CancelArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::{block_on, wait_up_to};

/// Programs of a run have some seconds to end politely.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn run(context: &Context, arguments: &CancelArguments) -> CommandResult {
    if let Some(client) = context.named_server()? {
        return jobs_elsewhere::cancel(context, &client, &arguments.job_id);
    }
    let runs = Runs::new(context.home()?.runs());
    let job = runs.find(&arguments.job_id, UnixMicros::now()).map_err(Failure::from)?;
    let look = || runs.view(&job).map_err(Failure::from);
    let view = look()?;
    if view.status.is_over() {
        return tell(context, &view, &format!("has ended before: {}", view.status));
    }
    if let (Some(line), false) = (view.damaged_line, view.status == RunStatus::Running) {
        // Nobody can resume it, so nobody would end it either.
        let path = view.path.join("events.jsonl");
        return Err(Failure::from(TailError::Damaged { path, line }).into());
    }
    let control = view.path.join("control");
    leave_cancel(&control).map_err(|error| {
        Failure::new(ExitCode::General, format!("cannot write into {}: {error}", control.display()))
    })?;
    // It may have ended meanwhile.
    let view = look()?;
    if view.status.is_over() {
        forget_cancel(&control);
        return tell(context, &view, &format!("has ended: {}", view.status));
    }
    // A daemon may have left the job for good, and sees what was left for it only when it is asked.
    let served = served_by(context, &view)?.is_some_and(|daemon| {
        view.status == RunStatus::Running || block_on(daemon.cancel_job(job.as_str())).is_ok()
    });
    if view.status != RunStatus::Running && !served {
        return tell(context, &view, "is marked: nobody runs it, and who resumes it next ends it");
    }
    let mut last = view;
    let ended = wait_up_to(ENDS_WITHIN, || {
        last = look()?;
        Ok(if served { last.status.is_over() } else { last.status != RunStatus::Running })
    })?;
    if ended {
        return tell(context, &last, &format!("has ended: {}", last.status));
    }
    if last.status != RunStatus::Running {
        return tell(context, &last, "is marked: the daemon ends it when its turn comes");
    }
    let message = format!("the job {job} has been told to end, and after {ENDS_WITHIN:?} it still runs");
    Err(Failure::new(ExitCode::Timeout, message).hint(format!("llama-orch tail -f {job}")).into())
}

fn tell(context: &Context, view: &RunView, word: &str) -> CommandResult {
    if context.printer.json() {
        let answer = json!({"job_id": view.id.as_str(), "status": view.status});
        return Ok(context.printer.document(&answer)?);
    }
    Ok(context.printer.line(format_args!("{} {word}", view.id))?)
}
