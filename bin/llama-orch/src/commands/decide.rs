//! `decide`: answers a gate at which a job waits.

use std::time::Duration;

use orch_core::{ExitCode, Failure, UnixMicros, UnixMillis};
use orchestratord::client::DaemonClient;
use serde_json::{Value, json};
use workflow::{
    Decided, EventType, JobId, JournalLine, RunStatus, RunView, Runs, check_decision, decision_is_left,
    leave_decision,
};

use super::jobs_elsewhere;
use crate::arguments::DecideArguments;
use crate::context::Context;
use crate::ending::CommandResult;
use crate::runtime::wait_up_to;

/// A living run looks for answers several times a second.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn run(context: &Context, arguments: &DecideArguments) -> CommandResult {
    let DecideArguments { job_id, step, choice } = arguments;
    if let Some(client) = context.named_server()? {
        return jobs_elsewhere::decide(context, &client, job_id, step, choice);
    }
    let runs = Runs::new(context.home()?.runs());
    let job = runs.find(job_id, UnixMicros::now()).map_err(Failure::from)?;
    let view = runs.view(&job).map_err(Failure::from)?;
    check_decision(&view.manifest, step, choice).map_err(Failure::from)?;
    let control = view.path.join("control");
    let decided = Decided {
        step: step.clone(),
        choice: choice.clone(),
        by: user(),
        at: UnixMillis::now().to_rfc3339(),
    };
    leave_decision(&control, &decided).map_err(|error| {
        Failure::new(ExitCode::General, format!("cannot write into {}: {error}", control.display()))
    })?;
    let served = served_by(context, &view)?.is_some();
    let is_live = view.status == RunStatus::Running || served;
    let taken = is_live && wait_up_to(TAKEN_WITHIN, || Ok(!decision_is_left(&control, &decided.step)))?;
    if taken && let Some(other) = last_answer(&runs, &job, step)?.filter(|answer| answer != choice) {
        let message = format!("{step} of {job} was answered by somebody else at the same moment: {other}");
        return Err(Failure::new(ExitCode::General, message).into());
    }
    tell(context, &view, &decided, taken, served)
}

/// What the journal says of a gate: of several answers at once it is one.
fn last_answer(runs: &Runs, job: &JobId, step: &str) -> Result<Option<String>, Failure> {
    let mut tail = runs.tail(job);
    let mut answer = None;
    loop {
        let lines = tail.read().map_err(Failure::from)?;
        if lines.is_empty() {
            return Ok(answer);
        }
        let is_answer = |line: &&JournalLine| {
            line.kind == Some(EventType::GateDecided) && line.step.as_deref() == Some(step)
        };
        for line in lines.iter().filter(is_answer) {
            let event: Value = serde_json::from_str(&line.text).unwrap_or_default();
            answer = event["data"]["choice"].as_str().map(str::to_owned);
        }
    }
}

/// The daemon of this home, where it takes care of a job, also if it does not run it at this moment.
pub(super) fn served_by(context: &Context, view: &RunView) -> Result<Option<DaemonClient>, Failure> {
    Ok(if view.is_submitted { DaemonClient::living(context.home()?) } else { None })
}

fn tell(context: &Context, view: &RunView, decided: &Decided, taken: bool, served: bool) -> CommandResult {
    let job = &view.id;
    if context.printer.json() {
        let answer = json!({
            "job_id": job.as_str(),
            "step": decided.step,
            "choice": decided.choice,
            "taken": taken,
        });
        return Ok(context.printer.document(&answer)?);
    }
    context.printer.line(format_args!("{} of {job}: {}", decided.step, decided.choice))?;
    if taken {
        return Ok(());
    }
    context.talk.note(&if served && view.status != RunStatus::Running {
        format!("the daemon goes on with it when its turn comes; watch it with: llama-orch tail -f {job}")
    } else if view.status == RunStatus::Running {
        format!("the run has not taken it up yet; watch it with: llama-orch tail -f {job}")
    } else {
        format!("nobody runs the job now; go on with: llama-orch run --resume {job}")
    });
    Ok(())
}

/// Who decides, by the name that the system's shells tell.
fn user() -> String {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    name("USER").or_else(|| name("USERNAME")).unwrap_or_else(|| "unknown".to_owned())
}
