//! One step, as far as its events have told.

use orch_core::UnixMicros;
use serde::{Deserialize, Serialize};
use workflow_spec::FailureKind;

/// The reason of an answer's end that a limit of tokens was.
pub(crate) const CUT: &str = "length";

/// How a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    #[default]
    Pending,
    Running,
    /// Between two attempts.
    Retrying,
    /// For a decision.
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
    /// By its condition, or because something it needs has failed.
    Skipped,
}

impl StepStatus {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// What the store did for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheUse {
    Hit,
    Miss,
    /// Another step asked the same at that moment.
    Joined,
    /// Done in an earlier life of the job.
    Resume,
}

impl CacheUse {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Resume => "resume",
        }
    }
}

/// Why a step failed or was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    pub kind: Option<FailureKind>,
    pub message: String,
}

/// A step of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    pub id: String,
    /// Written in the workflow, rather than made by a map, a loop or a sub-workflow.
    pub is_planned: bool,
    pub status: StepStatus,
    pub duration_s: Option<f64>,
    pub attempts: u32,
    pub cache: Option<CacheUse>,
    /// Prompt and completion tokens of all its requests.
    pub tokens: u64,
    /// After so many tokens its last answer was cut.
    pub cut_at: Option<u64>,
    /// Paths of its files below the project's outputs.
    pub files: Vec<String>,
    /// The last failure; of a step that succeeded at last, that of the attempt before.
    pub failure: Option<StepFailure>,
    /// Why it was skipped, where it was.
    pub skipped: Option<String>,
    /// What it waits for, at a gate.
    pub question: Option<Question>,
    /// Of the result: what the step is found by when the job is resumed.
    pub key: Option<String>,
    pub started_at: Option<UnixMicros>,
}

/// What a gate asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Question {
    pub message: String,
    pub choices: Vec<String>,
}

impl StepState {
    pub(crate) fn new(id: &str, is_planned: bool) -> Self {
        Self { id: id.to_owned(), is_planned, ..Self::default() }
    }

    /// Nothing of it is left to do.
    pub fn is_done(&self) -> bool {
        match self.status {
            StepStatus::Succeeded => true,
            StepStatus::Skipped => self.skipped.as_deref() == Some("condition"),
            _ => false,
        }
    }
}
