//! The folders of a daemon's jobs: made when a job is submitted, found again when a daemon comes back. Everything here
//! waits for the disk.

use std::io;
use std::path::{Path, PathBuf};

use orch_api::JobOptions;
use orch_core::{ExitCode, Failure, UnixMicros};
use pool_managerd::api::Refusal;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use workflow::{JobId, Past, RunFolder, RunFolderError, RunStatus, RunSummary, RunView, Runs, Tail};
use workflow_spec::JobSpec;

use super::inputs::{all_of, check_inputs};
use super::kept::{self, KeptError};
use super::owner::Owner;

/// Who holds a run's folder, as others are told.
const HOLDER: &str = "llama-orch daemon";
/// The runs of a home.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    runs: Runs,
}

/// A job that is submitted.
pub(super) struct NewJob {
    pub(super) id: JobId,
    pub(super) spec: JobSpec,
    pub(super) inputs: Map<String, Value>,
    pub(super) owner: Owner,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    /// The same job was submitted before.
    Known,
}

/// A job whose folder this process holds.
pub(super) struct Opened {
    pub(super) folder: RunFolder,
    pub(super) past: Past,
    pub(super) owner: Owner,
    pub(super) spec: JobSpec,
    pub(super) inputs: Map<String, Value>,
}

/// A job, looked at without holding anything.
pub(super) struct Looked {
    pub(super) owner: Option<Owner>,
    pub(super) view: RunView,
}

impl Looked {
    /// Whether it has come to its end, and nobody has wanted it to go on since.
    pub(super) fn is_over(&self) -> bool {
        let wanted_at = self.owner.as_ref().map(|owner| owner.wanted_at);
        self.view.status.is_over() && wanted_at != Some(self.view.manifest.journal.seq)
    }
}

impl Shelf {
    pub(super) fn new(runs: PathBuf) -> Self {
        Self { runs: Runs::new(runs) }
    }

    pub(super) fn run(&self, id: &JobId) -> PathBuf {
        self.runs.path(id)
    }

    /// Where others leave what they want of a run.
    pub(super) fn control(&self, id: &JobId) -> PathBuf {
        self.run(id).join("control")
    }

    /// The journal of a run from its beginning.
    pub(super) fn tail(&self, id: &JobId) -> Tail {
        self.runs.tail(id)
    }

    /// Makes the folder of a job. The owner's file comes last: with it the job is taken.
    pub(super) fn take_in(&self, job: &NewJob) -> Result<Taken, Failure> {
        let folder = match RunFolder::create(self.runs.root(), &job.id, &job.spec.project, HOLDER) {
            Ok(folder) => folder,
            Err(RunFolderError::AlreadyExists { id }) => match self.half_made(&id, job)? {
                Some(folder) => folder,
                None => return Ok(Taken::Known),
            },
            Err(error) => return Err(error.into()),
        };
        let path = folder.path().to_owned();
        let written = kept::keep(&folder, &job.spec, &job.inputs)
            .and_then(|()| job.owner.write(&path).map_err(|error| unwritable(&path, &error)));
        drop(folder);
        if written.is_err() {
            RunFolder::remove_unbegun(self.runs.root(), &job.id);
        }
        written.map(|()| Taken::New)
    }

    /// A folder that was being made for a submission when the daemon was killed; `None` where the same job is there
    /// already. Anything else is in the way.
    fn half_made(&self, id: &JobId, job: &NewJob) -> Result<Option<RunFolder>, Failure> {
        let in_the_way = || Failure::from(RunFolderError::AlreadyExists { id: id.clone() });
        if let Some(known) = Owner::read(&self.run(id)) {
            let is_same = known.submitter == job.owner.submitter && known.request == job.owner.request;
            return if is_same { Ok(None) } else { Err(in_the_way()) };
        }
        let (folder, past) = RunFolder::resume(self.runs.root(), id, HOLDER).map_err(|_| in_the_way())?;
        if past.manifest.journal.seq > 0 || folder.read_spec()?.is_some() {
            return Err(in_the_way());
        }
        Ok(Some(folder))
    }

    /// Replaces what a job is made of, or how it is run, and notes that somebody wants it to go on. `wanted_at` is
    /// where its journal ends. Nothing changes where `check` finds that the job must not go on like this.
    pub(super) fn want_again(
        &self,
        id: &JobId,
        spec: Option<JobSpec>,
        options: Option<JobOptions>,
        check: impl FnOnce(&JobSpec) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let resumed = RunFolder::resume(self.runs.root(), id, HOLDER).map_err(Failure::from)?;
        let (folder, past) = resumed;
        let is_edited = spec.is_some();
        let spec = match spec {
            Some(spec) => spec,
            None => kept::kept_spec(&folder).map_err(|error| lost(&folder, id, error))?,
        };
        check(&spec)?;
        if is_edited {
            kept::check_project(&past.manifest, &spec)?;
            let earlier = folder.read_inputs().map_err(Failure::from)?.unwrap_or_default();
            let inputs =
                check_inputs(&spec.inputs, Map::new(), earlier).map_err(|problems| all_of(&problems))?;
            kept::keep(&folder, &spec, &inputs)?;
        }
        let mut owner = Owner::read(folder.path()).ok_or_else(|| not_ours(id))?;
        owner.wanted_at = past.manifest.journal.seq;
        owner.lives_in_vain = 0;
        if let Some(options) = options {
            // Results that were made by one provider are not asked of another by leaving its name out.
            let provider = options.provider.or(owner.options.provider);
            owner.options = JobOptions { provider, ..options };
        }
        owner.write(folder.path()).map_err(|error| unwritable(folder.path(), &error))?;
        Ok(())
    }

    /// Takes hold of a job to work on it.
    pub(super) fn open(&self, id: &JobId) -> Result<Opened, Failure> {
        let (folder, past) = RunFolder::resume(self.runs.root(), id, HOLDER)?;
        let mut owner = Owner::read(folder.path()).ok_or_else(|| not_ours(id))?;
        // Before anything is made of what lies there: that may be what ends this process.
        owner.begin_life(past.succeeded.len());
        owner.write(folder.path()).map_err(|error| unwritable(folder.path(), &error))?;
        let spec = kept::kept_spec(&folder).map_err(|error| lost(&folder, id, error))?;
        let inputs = kept::kept_inputs(&folder).map_err(|error| lost(&folder, id, error))?;
        Ok(Opened { folder, past, owner, spec, inputs })
    }

    /// Notes that this process has let go of a job that is not over, and not died of it.
    pub(super) fn note_good_end(&self, id: &JobId) {
        let run = self.run(id);
        let Some(mut owner) = Owner::read(&run).filter(|owner| owner.lives_in_vain > 0) else { return };
        owner.lives_in_vain = 0;
        if let Err(error) = owner.write(&run) {
            tracing::warn!(job = %id, %error, "it cannot be noted that the job was left in good order");
        }
    }

    /// A job as it is now; `None` where there is none of this name.
    pub(super) fn look(&self, id: &JobId) -> Result<Option<Looked>, Failure> {
        if !self.run(id).is_dir() {
            return Ok(None);
        }
        let view = self.runs.view(id)?;
        Ok(Some(Looked { owner: Owner::read(&self.run(id)), view }))
    }

    /// All runs of the home, the newest first.
    pub(super) fn list(&self) -> Result<Vec<RunSummary>, Failure> {
        let (rows, troubles) = self.runs.list(UnixMicros::now())?;
        for trouble in troubles {
            tracing::warn!("{trouble}");
        }
        Ok(rows)
    }

    /// Every job that was submitted to a daemon of this home, in the order of submission.
    pub(super) fn submitted(&self) -> Vec<(JobId, Owner)> {
        let Ok(entries) = std::fs::read_dir(self.runs.root()) else { return Vec::new() };
        let named = entries.flatten().filter_map(|entry| JobId::new(entry.file_name().to_str()?).ok());
        let mut jobs: Vec<(JobId, Owner)> =
            named.filter_map(|id| Some((id.clone(), Owner::read(&self.run(&id))?))).collect();
        jobs.sort_by(|one, other| (&one.1.submitted_at, &one.0).cmp(&(&other.1.submitted_at, &other.0)));
        jobs
    }

    /// What a daemon that comes back finds of a job of its own.
    pub(super) fn found(&self, id: &JobId, owner: &Owner) -> Result<Found, Failure> {
        let view = self.runs.view(id)?;
        Ok(match view.status {
            // Cut off, or never begun.
            RunStatus::Queued | RunStatus::Interrupted => Found::ToDo,
            // Somebody else has taken it up.
            RunStatus::Running => Found::Over,
            // Somebody wanted it to go on, and nobody has begun.
            _ if view.manifest.journal.seq == owner.wanted_at => Found::ToDo,
            RunStatus::Waiting => Found::AtGate,
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => Found::Over,
        })
    }
}

/// What is to be done about a job of an earlier daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    ToDo,
    AtGate,
    Over,
}

/// Names a submission by everything that makes it the same as another.
pub(super) fn fingerprint(spec: &JobSpec, inputs: &Map<String, Value>, options: &JobOptions) -> String {
    let whole = json!({"spec": spec.source, "parts": spec.parts, "inputs": inputs, "options": options});
    hex::encode(Sha256::digest(whole.to_string()))
}

fn lost(folder: &RunFolder, id: &JobId, error: KeptError) -> Failure {
    match error {
        KeptError::NeverBegun => {
            let path = folder.inputs();
            let message = format!("the job {id} has lost what it is made of ({})", path.display());
            Failure::new(ExitCode::StateUnusable, message).hint("submit it again under another id")
        }
        KeptError::Spec(errors) => Failure::new(ExitCode::JobSpecInvalid, errors.to_string()),
        KeptError::Failure(failure) => failure,
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ExitCode::General, format!("cannot write to {}: {error}", path.display()))
}

pub(super) fn not_ours(id: &JobId) -> Failure {
    let message = format!("the job {id} was not submitted to this server, but run beside it");
    Failure::new(ExitCode::Usage, message).hint(format!("go on with it there: llama-orch run --resume {id}"))
}
