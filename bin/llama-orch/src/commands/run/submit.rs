//! `run --submit`: the control plane carries the workflow out; this command follows it.

use orch_api::{JobAccepted, JobJournal, JobOptions, JobRequest, ResumeRequest};
use orch_core::{ExitCode, Failure};
use orchestratord::client::DaemonClient;
use serde_json::{Map, Value};
use workflow_spec::JobSpec;

use super::end::MOST_LISTED;
use crate::arguments::{JournalChoice, RunArguments};
use crate::commands::jobs_elsewhere::{end_of, follow, gates, named, totals};
use crate::commands::workflow_text::{read_spec, typed_inputs};
use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::live::{JobPicture, Show};
use crate::runtime::{block_on, exit_on_interrupt};
use crate::targets::Plane;
use crate::words::quoted;

pub(super) fn run(context: &Context, arguments: &RunArguments) -> CommandResult {
    let plane = Plane::find(context)?;
    let client = plane.client().ok_or_else(no_daemon)?;
    let spec = arguments.spec.as_deref().map(|name| read_spec(context, name)).transpose()?;
    let picture = spec.as_ref().map_or_else(JobPicture::default, |spec| JobPicture::of(&spec.graph));
    let (accepted, after) = match &arguments.resume {
        Some(resumed) => resume(client, arguments, resumed.as_deref(), spec)?,
        None => (submit(context, client, arguments, spec)?, 0),
    };
    let job = &accepted.job_id;
    context.talk.note(&format!("submitted as {job}; Ctrl-C ends this command, not the job"));
    // What is followed here goes on there.
    exit_on_interrupt();
    let show = Show::new(context.printer, context.talk, picture);
    let followed = follow(client, job, after, true, &mut |line| {
        show.lines(format!("{}\n", line.text).as_bytes());
        // A job that is decided upon goes on there; this command has told that it waits.
        Ok(!line.kind.is_some_and(workflow::EventType::ends_job))
    });
    show.finish();
    followed?;
    // The daemon may have been restarted meanwhile.
    let client = client.renewed().unwrap_or_else(|| client.clone());
    tell(context, &end_of(&client, job)?)
}

fn no_daemon() -> Failure {
    Failure::new(ExitCode::DaemonNotRunning, "the daemon is not running: nobody takes jobs")
        .hint("llama-orch daemon start, or leave --submit out")
}

fn submit(
    context: &Context,
    client: &DaemonClient,
    arguments: &RunArguments,
    spec: Option<JobSpec>,
) -> Result<JobAccepted, Ended> {
    let spec = spec
        .ok_or_else(|| Failure::new(ExitCode::Usage, "no workflow is given").hint("give it: --spec FILE"))?;
    let inputs = typed_inputs(context, &spec, &arguments.inputs.vars, Map::new())?;
    let request = JobRequest {
        spec: Value::String(spec.source),
        specs: spec.parts,
        inputs,
        options: options(arguments),
        job_id: arguments.job_id.clone(),
    };
    Ok(block_on(client.submit_job(&request))?)
}

/// The job, and the place in its journal from which on it is followed.
fn resume(
    client: &DaemonClient,
    arguments: &RunArguments,
    resumed: Option<&str>,
    spec: Option<JobSpec>,
) -> Result<(JobAccepted, u64), Ended> {
    if !arguments.inputs.vars.is_empty() {
        let message =
            "a submitted job goes on with its own inputs: --var is not taken with --resume --submit";
        return Err(Failure::new(ExitCode::Usage, message).hint("submit it as a new job").into());
    }
    let job = named(client, resumed.or(arguments.job_id.as_deref()).unwrap_or("last"))?;
    let known = block_on(client.job(&job))?["journal"]["seq"].as_u64().unwrap_or_default();
    // Who says nothing of how it is to be run leaves that as it was.
    let options = Some(options(arguments)).filter(|options| *options != JobOptions::default());
    let (spec, specs) = spec.map(|spec| (Value::String(spec.source), spec.parts)).unzip();
    let request = ResumeRequest { spec, specs: specs.unwrap_or_default(), options };
    Ok((block_on(client.resume_job(&job, &request))?, known))
}

fn options(arguments: &RunArguments) -> JobOptions {
    JobOptions {
        concurrency: arguments.concurrency,
        provider: arguments.provider.clone(),
        no_cache: arguments.no_cache,
        journal: match arguments.journal {
            JournalChoice::Relaxed => JobJournal::Relaxed,
            JournalChoice::Strict => JobJournal::Strict,
        },
    }
}

/// What a person may want to type now.
fn next(document: &Value, job: &str) -> Vec<String> {
    let job = quoted(job);
    if document["status"] != "waiting" {
        return vec![format!("llama-orch show {job}")];
    }
    let decide =
        |(step, choices): (&str, String)| format!("llama-orch decide {job} {} {choices}", quoted(step));
    gates(document, "|").map(decide).take(MOST_LISTED).collect()
}

/// How the job stands, and the code that says so.
fn tell(context: &Context, document: &Value) -> CommandResult {
    let job = document["job_id"].as_str().unwrap_or_default();
    if !context.printer.json() {
        let next = next(document, job).into_iter().map(|command| ("next", command));
        context.printer.pairs(&totals(document, MOST_LISTED).into_iter().chain(next).collect::<Vec<_>>())?;
    }
    Ended::told(match document["status"].as_str() {
        Some("succeeded") => ExitCode::Success,
        Some("cancelled") => ExitCode::Interrupted,
        Some("waiting") => ExitCode::JobAtGate,
        _ => ExitCode::JobFailed,
    })
}
