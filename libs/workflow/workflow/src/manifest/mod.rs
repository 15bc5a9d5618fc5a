//! What is known of a job: folded event by event, while they are written as well as when they are read again.
//! `manifest.json` is this, as text.

mod document;
mod fold;
mod step;

use std::collections::HashMap;

use orch_core::UnixMicros;
use serde::{Deserialize, Serialize};

use crate::TokenUse;

pub(crate) use step::CUT;
pub use step::{CacheUse, Question, StepFailure, StepState, StepStatus};

/// How a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    #[default]
    Running,
    Succeeded,
    Failed,
    Cancelled,
    /// Only gates are left.
    Waiting,
}

impl JobStatus {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
        }
    }
}

/// A file below the project's outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Below `outputs/<project>/`, with `/` between its parts.
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    pub size_bytes: u64,
    pub media_type: Option<String>,
}

/// A job and its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    pub job_id: String,
    pub project: String,
    pub provider: Option<String>,
    pub spec_sha256: Option<String>,
    /// `None` before the first event.
    pub status: Option<JobStatus>,
    pub started_at: Option<UnixMicros>,
    pub finished_at: Option<UnixMicros>,
    /// Why the job failed, where it did.
    pub error: Option<String>,
    /// Tokens of all lives of the job.
    pub usage: TokenUse,
    /// How many processes have begun to run the job.
    pub lives: u32,
    /// Steps that the store has served in this life.
    pub from_cache: u32,
    /// Where the journal ends of which this was made.
    pub journal: JournalEnd,
    pub(crate) steps: Vec<StepState>,
    by_id: HashMap<String, usize>,
    /// What is known of the steps from earlier lives.
    earlier: HashMap<String, StepState>,
    files: Vec<FileState>,
    by_path: HashMap<String, usize>,
    /// Seconds of lives that have ended.
    lived_s: f64,
    life_began: Option<UnixMicros>,
    last_event: Option<UnixMicros>,
}

/// A place in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEnd {
    pub seq: u64,
    pub bytes: u64,
}

impl Manifest {
    pub(crate) fn new(job_id: &str) -> Self {
        Self { job_id: job_id.to_owned(), ..Self::default() }
    }

    /// The steps of the workflow in its order; then, as they came, those that maps, loops and sub-workflows made.
    pub fn steps(&self) -> &[StepState] {
        &self.steps
    }

    pub fn step(&self, id: &str) -> Option<&StepState> {
        self.by_id.get(id).map(|at| &self.steps[*at])
    }

    /// Files in the order in which they first came.
    pub fn files(&self) -> &[FileState] {
        &self.files
    }

    /// When the last event was.
    pub fn last_event(&self) -> Option<UnixMicros> {
        self.last_event
    }

    /// Seconds for which the job ran, in all its lives. Of a life that goes on or was cut short: up to its last
    /// event.
    pub fn duration_s(&self) -> Option<f64> {
        self.started_at.map(|_| self.lived_s + self.this_life_s())
    }

    /// The same of a life that goes on: up to now.
    pub fn duration_until(&self, now: UnixMicros) -> Option<f64> {
        let until_now = self.life_began.map_or(0.0, |began| now.since(began).as_secs_f64());
        self.started_at.map(|_| self.lived_s + until_now)
    }

    fn this_life_s(&self) -> f64 {
        match (self.life_began, self.last_event) {
            (Some(began), Some(last)) => last.since(began).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Failed steps, in order.
    pub fn failed_steps(&self) -> impl Iterator<Item = &StepState> {
        self.steps.iter().filter(|step| step.status == StepStatus::Failed)
    }

    /// Of the workflow's own steps: how many have ended well, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        let planned = self.steps.iter().filter(|step| step.is_planned);
        planned.fold((0, 0), |(done, all), step| (done + usize::from(step.is_done()), all + 1))
    }
}
