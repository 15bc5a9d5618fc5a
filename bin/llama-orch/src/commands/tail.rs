//! `tail`: the events of a run, oldest first; followed, until the job ends.

use std::time::Duration;

use orch_core::{Failure, UnixMicros};
use orchestratord::client::DaemonClient;
use workflow::{JobId, RunStatus, Runs, Tail};

use super::jobs_elsewhere;
use super::journal_words::{is_wanted, shown};
use crate::arguments::TailArguments;
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::runtime::repeat;

const FOLLOW_PACE: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context, arguments: &TailArguments) -> CommandResult {
    if let Some(client) = context.named_server()? {
        return elsewhere(context, &client, arguments);
    }
    let runs = Runs::new(context.home()?.runs());
    let id = runs.find(&arguments.job_id, UnixMicros::now()).map_err(Failure::from)?;
    let mut tail = runs.tail(&id).after(arguments.since);
    let ended = show_new(context, arguments, &mut tail)?;
    if !arguments.follow || ended {
        return Ok(());
    }
    tell_if_nobody_runs_it(context, &runs, &id)?;
    repeat(FOLLOW_PACE, || show_new(context, arguments, &mut tail))
}

fn elsewhere(context: &Context, client: &DaemonClient, arguments: &TailArguments) -> CommandResult {
    let id = jobs_elsewhere::named(client, &arguments.job_id)?;
    jobs_elsewhere::follow(client, &id, arguments.since, arguments.follow, &mut |line| {
        if is_wanted(arguments, &line) {
            context.printer.line(shown(context, &line))?;
        }
        Ok(true)
    })
}

/// Shows what is there; whether the job has ended with it.
fn show_new(context: &Context, arguments: &TailArguments, tail: &mut Tail) -> Result<bool, Ended> {
    loop {
        let lines = tail.read().map_err(Failure::from)?;
        if lines.is_empty() {
            return Ok(tail.is_at_end_of_job());
        }
        let mut text = String::new();
        for line in lines.iter().filter(|line| is_wanted(arguments, line)) {
            text.push_str(&shown(context, line));
            text.push('\n');
        }
        if !text.is_empty() {
            context.printer.text(&text)?;
        }
    }
}

/// A job whose process is gone does not go on by itself.
fn tell_if_nobody_runs_it(context: &Context, runs: &Runs, id: &JobId) -> CommandResult {
    if runs.view(id).map_err(Failure::from)?.status == RunStatus::Interrupted {
        context.talk.note(&format!("nobody runs {id} now; waiting until it is resumed (Ctrl-C ends this)"));
    }
    Ok(())
}
