//! Workflows: submitted, looked at, followed, cancelled, resumed, decided upon.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A workflow to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What is to be done: a spec as it is written in a file, YAML or JSON, or the document itself.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// Other specs that this one runs as steps: the path that it names, and the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub specs: BTreeMap<String, String>,
    /// The values of its declared inputs. Files are sent as `{path, text}`: nothing of the server's is read.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub inputs: Map<String, Value>,
    /// How it is run.
    #[serde(default)]
    pub options: JobOptions,
    /// Names the run, and makes a repeated submission harmless: the same workflow under the same name is the same
    /// job. Without one a name is made.
    #[serde(default)]
    pub job_id: Option<String>,
}

/// How a job is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobOptions {
    /// So many steps at once; else the spec's own limit.
    pub concurrency: Option<u32>,
    /// The provider of candidates that name none.
    pub provider: Option<String>,
    /// Neither looks results up nor offers its own to other jobs.
    pub no_cache: bool,
    /// When an event counts as written.
    pub journal: JobJournal,
}

/// When an event counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobJournal {
    /// On disk within moments.
    #[default]
    Relaxed,
    /// On disk before anything that follows from it.
    Strict,
}

/// How a job goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResumeRequest {
    /// A changed spec; else the one that it was begun with.
    #[schema(value_type = Option<Object>)]
    pub spec: Option<Value>,
    /// The specs that a changed one runs as steps.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub specs: BTreeMap<String, String>,
    /// Other options than those that it was begun with; where they name no provider, that one stays.
    pub options: Option<JobOptions>,
}

/// The answer to a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobDecision {
    /// The step that waits.
    pub step: String,
    /// One of its choices.
    pub choice: String,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Taken; others run first.
    Queued,
    /// Under way.
    Running,
    /// Whoever worked on it is gone, and it has not ended.
    Interrupted,
    /// Ended well.
    Succeeded,
    /// Ended with a failed step.
    Failed,
    /// Ended because somebody said so.
    Cancelled,
    /// Nothing is left to do until a gate is decided.
    Waiting,
}

impl JobStatus {
    /// As it is written.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Waiting => "waiting",
        }
    }
}

/// A job that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobAccepted {
    /// Under this it can be looked at.
    pub job_id: String,
    /// How far it is by now.
    pub status: JobStatus,
    /// Where its events are.
    pub events_url: String,
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its id.
    pub job_id: String,
    /// What its spec calls it.
    pub project: String,
    /// How far it is.
    pub status: JobStatus,
    /// Steps of its spec that are done.
    pub steps_done: usize,
    /// All steps of its spec.
    pub steps: usize,
    /// Prompt and completion tokens.
    pub tokens: u64,
    /// When it began, RFC 3339; `null` = it has not.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Seconds that were worked on it.
    pub duration_s: Option<f64>,
}

/// One line of a job's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobEvent {
    /// UTC with microseconds, RFC 3339.
    pub ts: String,
    /// From 1, without gaps; also the id in a stream.
    pub seq: u64,
    /// `INFO`, `WARN` or `ERROR`.
    pub level: String,
    /// The job.
    pub job_id: String,
    /// One of the documented types, such as `step.started`; also the name in a stream.
    #[serde(rename = "type")]
    pub kind: String,
    /// The step concerned.
    #[serde(default)]
    pub step: Option<String>,
    /// Which try of the step, from 1.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Details, by type.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
}

/// One thing that is wrong with a document that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Of several documents the one that is wrong, by its path; empty for the first.
    #[serde(default)]
    pub file: String,
    /// The line, from 1; 0 where there is no place.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// Where it is in the document, such as `steps.qa.llm.prompt`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}
