//! `run`: carries out a workflow, or goes on with one.

mod beginning;
mod dry_run;
mod end;
mod interrupt;
mod submit;

use std::path::PathBuf;
use std::sync::Arc;

use orch_core::{ExitCode, Failure};
use orchestratord::jobs::keep;
use tokio_util::sync::CancellationToken;
use workflow::{Halt, Job, JobEnd, JobOptions, Ports, RunFolder, Store, Watch, run_job};

use super::surroundings::surroundings;
use crate::arguments::{JournalChoice, RunArguments};
use crate::context::Context;
use crate::ending::CommandResult;
use crate::live::{JobPicture, Show};
use crate::runtime::block_on;
use beginning::Beginning;

/// What others read who find the job's lock taken.
const COMMAND: &str = "llama-orch run";

pub(super) fn run(context: &Context, arguments: &RunArguments) -> CommandResult {
    if arguments.dry_run {
        return dry_run::run(context, arguments);
    }
    if arguments.submit {
        return submit::run(context, arguments);
    }
    let beginning = beginning::begin(context, arguments)?;
    let (ports, provider) = surroundings(context, arguments.provider.as_deref(), &beginning.spec)?;
    let options = JobOptions {
        concurrency: arguments.concurrency,
        provider,
        no_cache: arguments.no_cache,
        strict: arguments.journal == JournalChoice::Strict,
        keep_waiting: false,
        folder: beginning.folder.clone(),
    };
    carry_out(context, beginning, ports, options)
}

fn carry_out(context: &Context, beginning: Beginning, ports: Ports, options: JobOptions) -> CommandResult {
    let fresh = beginning.place.fresh();
    let (path, end) = carry_out_in(context, beginning, ports, options).map_err(|failure| match fresh {
        Some((runs, id)) if RunFolder::remove_unbegun(&runs, &id) => failure
            .hint("nothing was begun, and nothing of it is left: see to free space and permissions, then run it again"),
        _ => failure,
    })?;
    end::tell(context, &path, &end)
}

/// Where the job lies, and how it ended.
fn carry_out_in(
    context: &Context,
    beginning: Beginning,
    ports: Ports,
    options: JobOptions,
) -> Result<(PathBuf, JobEnd), Failure> {
    let Beginning { spec, inputs, place, .. } = beginning;
    let (folder, past) = place.open(&spec)?;
    keep(&folder, &spec, &inputs)?;
    let path = folder.path().to_owned();
    let store = Arc::new(Store::home(context.home()?.cache()));
    let show = Arc::new(Show::new(context.printer, context.talk, JobPicture::of(&spec.graph)));
    let job = Job { spec: Arc::new(spec.with_model_input(&inputs)), inputs, options };
    let watch: Arc<dyn Watch> = show.clone();
    let cancel = CancellationToken::new();
    let ended: Result<JobEnd, Failure> = block_on(async {
        let listener = interrupt::listen(&cancel, &show)?;
        let halt = Halt { cancel: cancel.clone(), ..Halt::default() };
        let run = run_job(folder, past, job, store, ports, watch, halt);
        tokio::select! {
            ended = run => Ok(ended?),
            never = listener => match never {},
        }
    });
    show.finish();
    Ok((path, ended?))
}

/// `what` works on a workflow that is given.
fn needs_spec(what: &str) -> CommandResult {
    Err(Failure::new(ExitCode::Usage, format!("{what} needs a workflow")).hint("give it: --spec FILE").into())
}
