//! A run: what it is given, and how it ends.
//!
//! [`run_job`] makes a [`driver::Driver`] and lets it run. The driver is spread over files by what it does:
//! `opening` decides what becomes of a step whose turn has come, `lookups` asks for the results of several such steps
//! at once, `attempts` what comes after one, `ending` what an end means, `expanding` does steps that are made of others,
//! `gates` waits for people, `effects` for what they know of effects, `pausing` for what is under way when the process
//! is to end, `funds` keeps to the budget, `durable` says when the journal reaches the disk.
//! `nodes` is its state; `schedule`, `limits`, `retry`, `timers` and `facts` are pure and know nothing of it.

mod attempts;
mod driver;
mod durable;
mod effects;
mod ending;
mod engines;
mod expanding;
mod facts;
mod funds;
mod gates;
mod limits;
mod links;
mod lookups;
mod nodes;
mod opening;
mod pausing;
mod plan;
mod publishing;
mod results;
mod retry;
mod schedule;
mod tasks;
mod timers;
mod wall;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orch_core::{ExitCode, Failure};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use workflow_spec::JobSpec;

use crate::files::{FileError, OutputFiles};
use crate::journal::JournalError;
use crate::key::KeyDocument;
use crate::manifest::Manifest;
use crate::past::Past;
use crate::ports::Ports;
use crate::recorder::Recorder;
use crate::run_folder::{RunFolder, RunFolderError};
use crate::store::{Durability, Store};
use driver::{Driver, Parts};
use publishing::Publisher;
use results::Results;

/// A workflow with the values it runs on.
#[derive(Clone)]
pub struct Job {
    pub spec: Arc<JobSpec>,
    /// A value for each declared input.
    pub inputs: Map<String, Value>,
    pub options: JobOptions,
}

/// What whoever starts a job decides about it.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// Steps at once; goes before the spec's own limit.
    pub concurrency: Option<u32>,
    /// Whom to ask where the spec names nobody.
    pub provider: String,
    /// Neither takes results from other jobs nor offers any.
    pub no_cache: bool,
    /// Every step is on disk before it counts, rather than within 20 ms.
    pub strict: bool,
    /// Stays while gates wait, rather than end with [`JobOutcome::Waiting`].
    pub keep_waiting: bool,
    /// Where the workflow's file lies: what `cache: { key: seed-v2.1 }` takes the code's version of.
    pub folder: Option<PathBuf>,
}

/// How a run is ended from outside.
#[derive(Clone, Debug, Default)]
pub struct Halt {
    /// The job is to end.
    pub cancel: CancellationToken,
    /// The process that runs the job is about to end, and the job goes on in another: no further step begins.
    pub pause: CancellationToken,
    /// What is under way then gets so long.
    pub patience: Duration,
}

/// Hears what a run would do, in place of its being done.
pub(crate) trait Foresee: Send + Sync {
    /// Work that no stored result stands in for.
    fn action(&self, step: &str, document: &KeyDocument);
    /// A decision that somebody would have to take.
    fn gate(&self, step: &str);
}

/// Somebody who looks on.
pub trait Watch: Send + Sync {
    /// Whole lines, as they now stand in the journal.
    fn lines(&self, journal: &[u8]);
    /// Text of a step's answer as it comes.
    fn piece(&self, step: &str, text: &str);
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    Succeeded,
    Failed,
    Cancelled,
    /// Nothing can go on until somebody decides at a gate.
    Waiting,
    /// It was left where it is, for whoever resumes it.
    Paused,
}

impl JobOutcome {
    /// Whether the job has come to an end.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The end of one life of a job.
#[derive(Clone, Debug)]
pub struct JobEnd {
    pub outcome: JobOutcome,
    /// Why, where it did not succeed.
    pub error: Option<String>,
    /// Of this life.
    pub duration: Duration,
    /// What is known of the job and its steps.
    pub manifest: Manifest,
}

/// Why a run broke off. What its journal holds stays done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot get {} onto the disk", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Files(#[from] FileError),
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error("cannot make a folder for a moment: {0}")]
    Scratch(io::Error),
    #[error("the run was interrupted while it ended")]
    Interrupted,
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Journal(error) => error.into(),
            RunError::Sync { ref source, .. } => {
                Failure::new(ExitCode::General, format!("{error}: {source}")).hint(
                    "see to the disk, then go on with `llama-orch run --resume`: what is done stays done",
                )
            }
            RunError::Files(ref source) => {
                let cause = std::error::Error::source(source).map(|cause| format!(": {cause}"));
                Failure::new(ExitCode::General, format!("{error}{}", cause.unwrap_or_default()))
            }
            RunError::Folder(error) => error.into(),
            RunError::Scratch(_) => Failure::new(ExitCode::General, error.to_string())
                .hint("see to the folder for temporary files"),
            RunError::Interrupted => Failure::new(ExitCode::General, error.to_string())
                .hint("go on with `llama-orch run --resume`"),
        }
    }
}

/// Runs a job in its folder until it ends, waits, or is halted. `past` is what earlier lives have left; `None`
/// for a new job.
pub async fn run_job(
    folder: RunFolder,
    past: Option<Past>,
    job: Job,
    store: Arc<Store>,
    ports: Ports,
    watch: Arc<dyn Watch>,
    halt: Halt,
) -> Result<JobEnd, RunError> {
    let spec = Arc::unwrap_or_clone(job.spec).with_model_input(&job.inputs);
    let job = Job { spec: Arc::new(spec), ..job };
    let durability = if job.options.strict { Durability::Strict } else { Durability::Relaxed };
    let files = OutputFiles::open(folder.path(), &job.spec.project, durability)?;
    let own = Store::run(folder.cache());
    let swept = store.clone();
    // What cannot be swept now is swept by another run.
    let _swept = tokio::task::spawn_blocking(move || swept.clean()).await;
    let recorder = Recorder::open(folder, past.as_ref())?;
    let past = past.unwrap_or_default();
    let results = Results::new(store, own, durability, past.lives() > 0);
    let publisher = Arc::new(Publisher::new(files));
    let foresee = None;
    Driver::new(Parts { job, ports, watch, past, recorder, results, publisher, halt, foresee }).run().await
}

/// Goes through a job in an empty folder and tells what it would do. What would be done is left, and with it
/// whatever needs it; failures stop nothing.
pub(crate) async fn foresee_job(
    folder: RunFolder,
    job: Job,
    store: Arc<Store>,
    ports: Ports,
    foresee: Arc<dyn Foresee>,
) -> Result<Manifest, RunError> {
    let files = OutputFiles::open(folder.path(), &job.spec.project, Durability::Relaxed)?;
    let own = Store::run(folder.cache());
    let parts = Parts {
        recorder: Recorder::open(folder, None)?,
        past: Past::default(),
        results: Results::new(store, own, Durability::Relaxed, false),
        publisher: Arc::new(Publisher::new(files)),
        watch: Arc::new(Unwatched),
        halt: Halt::default(),
        foresee: Some(foresee),
        job,
        ports,
    };
    Ok(Driver::new(parts).run().await?.manifest)
}

/// Nobody looks on.
struct Unwatched;

impl Watch for Unwatched {
    fn lines(&self, _: &[u8]) {}

    fn piece(&self, _: &str, _: &str) {}
}
