//! Which job is meant, and what it is made of: nothing is written before all of it is known.

use std::path::PathBuf;

use orch_core::{ExitCode, Failure, UnixMicros};
use orchestratord::jobs::{KeptError, check_project, kept_inputs, kept_spec};
use serde_json::{Map, Value};
use workflow::{JobId, Past, RunFolder, RunFolderError, Runs};
use workflow_spec::JobSpec;

use super::COMMAND;
use crate::arguments::RunArguments;
use crate::commands::workflow_text::{read_spec, spec_folder, spec_refused, typed_inputs};
use crate::context::Context;
use crate::ending::Ended;

/// Names the newest job.
const LAST: &str = "last";

/// A job that can be run.
pub(super) struct Beginning {
    pub(super) spec: JobSpec,
    pub(super) inputs: Map<String, Value>,
    pub(super) place: Place,
    /// Where the workflow's file lies.
    pub(super) folder: Option<PathBuf>,
}

/// Where the job lies.
pub(super) enum Place {
    /// A folder that is made now.
    Fresh { runs: PathBuf, id: JobId },
    /// One that was there, with its lock held.
    Held(Box<(RunFolder, Past)>),
}

impl Place {
    /// Where the job will lie that is not there yet.
    pub(super) fn fresh(&self) -> Option<(PathBuf, JobId)> {
        match self {
            Self::Fresh { runs, id } => Some((runs.clone(), id.clone())),
            Self::Held(_) => None,
        }
    }

    pub(super) fn open(self, spec: &JobSpec) -> Result<(RunFolder, Option<Past>), Failure> {
        match self {
            Self::Fresh { runs, id } => Ok((RunFolder::create(&runs, &id, &spec.project, COMMAND)?, None)),
            Self::Held(held) => {
                let (folder, past) = *held;
                Ok((folder, Some(past)))
            }
        }
    }
}

pub(super) fn begin(context: &Context, arguments: &RunArguments) -> Result<Beginning, Ended> {
    let runs = Runs::new(context.home()?.runs());
    let spec = arguments.spec.as_deref().map(|name| read_spec(context, name)).transpose()?;
    let asked = arguments.job_id.as_deref().map(named).transpose()?;
    let Some(resumed) = &arguments.resume else {
        return begin_fresh(context, arguments, spec, &runs, asked);
    };
    match resumed_job(&runs, resumed.as_deref(), asked, spec.as_ref())? {
        Found::Job(id) => go_on(context, arguments, spec, &runs, &id),
        // What never began is begun.
        Found::Nothing(id) => begin_fresh(context, arguments, spec, &runs, id),
    }
}

fn begin_fresh(
    context: &Context,
    arguments: &RunArguments,
    spec: Option<JobSpec>,
    runs: &Runs,
    id: Option<JobId>,
) -> Result<Beginning, Ended> {
    let Some(spec) = spec else {
        return Err(Failure::new(ExitCode::Usage, "no workflow is given")
            .hint("give it: --spec FILE")
            .into());
    };
    let inputs = typed_inputs(context, &spec, &arguments.inputs.vars, Map::new())?;
    let folder = arguments.spec.as_deref().map(spec_folder);
    let id = id.unwrap_or_else(|| JobId::fresh(&spec.project));
    if runs.path(&id).exists() {
        return Err(Failure::from(RunFolderError::AlreadyExists { id }).into());
    }
    Ok(Beginning { spec, inputs, place: Place::Fresh { runs: runs.root().to_owned(), id }, folder })
}

/// With the workflow that the job was begun with, where no other is given, whom it asked, and its inputs but for those
/// that are.
fn go_on(
    context: &Context,
    arguments: &RunArguments,
    spec: Option<JobSpec>,
    runs: &Runs,
    id: &JobId,
) -> Result<Beginning, Ended> {
    let (folder, past) = RunFolder::resume(runs.root(), id, COMMAND).map_err(Failure::from)?;
    let mut spec = match spec {
        Some(spec) => spec,
        None => kept_spec(&folder).map_err(|error| not_kept(context, error, id))?,
    };
    // Whom the job has asked goes before whom another shell's environment names.
    if arguments.spec.is_none() || spec.provider.is_none() {
        spec.provider = past.manifest.provider.clone().or(spec.provider);
    }
    check_project(&past.manifest, &spec)?;
    let beside = arguments.spec.as_deref().map(spec_folder);
    let earlier = match kept_inputs(&folder) {
        Ok(kept) => kept,
        Err(KeptError::NeverBegun) => Map::new(),
        Err(error) => return Err(not_kept(context, error, id)),
    };
    let inputs = typed_inputs(context, &spec, &arguments.inputs.vars, earlier)?;
    Ok(Beginning { spec, inputs, place: Place::Held(Box::new((folder, past))), folder: beside })
}

fn not_kept(context: &Context, error: KeptError, id: &JobId) -> Ended {
    match error {
        KeptError::NeverBegun => Failure::new(ExitCode::JobSpecInvalid, format!("the job {id} never began"))
            .hint("give its workflow with --spec: it is started then")
            .into(),
        KeptError::Spec(errors) => spec_refused(context, errors, &format!("{id}/inputs/spec.yaml")),
        KeptError::Failure(failure) => failure.into(),
    }
}

enum Found {
    Job(JobId),
    /// The name that it has to get, where one was given.
    Nothing(Option<JobId>),
}

/// The job that is to be gone on with: by its name, or the newest one, of the workflow's project where there is a
/// workflow.
fn resumed_job(
    runs: &Runs,
    resumed: Option<&str>,
    asked: Option<JobId>,
    spec: Option<&JobSpec>,
) -> Result<Found, Failure> {
    let now = UnixMicros::now();
    let name = match (resumed.filter(|name| *name != LAST), asked) {
        (Some(name), Some(asked)) if name != asked.as_str() => {
            let message = format!("--resume names {} and --job-id {asked}", name.escape_debug());
            return Err(Failure::new(ExitCode::Usage, message).hint("name one of them"));
        }
        (Some(name), _) => Some(name.to_owned()),
        (None, asked) => asked.map(|id| id.to_string()),
    };
    match (name, spec) {
        (Some(name), None) => Ok(Found::Job(runs.find(&name, now)?)),
        // One that is not there gets just this name.
        (Some(name), Some(_)) => {
            let id = named(&name)?;
            let is_there = runs.path(&id).is_dir();
            Ok(if is_there { Found::Job(id) } else { Found::Nothing(Some(id)) })
        }
        (None, Some(spec)) => {
            let newest = runs.newest_of(&spec.project, now)?;
            Ok(newest.map_or(Found::Nothing(None), Found::Job))
        }
        (None, None) if resumed.is_some() => Ok(Found::Job(runs.find(LAST, now)?)),
        (None, None) => {
            let message = "--resume needs the name of a job where no workflow is given";
            Err(Failure::new(ExitCode::Usage, message).hint("`--resume last` is the newest job"))
        }
    }
}

fn named(name: &str) -> Result<JobId, Failure> {
    JobId::new(name).map_err(|error| {
        Failure::new(ExitCode::Usage, format!("{} cannot name a job: {error}", name.escape_debug()))
    })
}
