//! The manifest as `manifest.json` has it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{FileState, JobStatus, JournalEnd, Manifest, StepState, StepStatus};
use crate::journal::stamp::show;

#[derive(Serialize)]
struct Document<'a> {
    job_id: &'a str,
    project: &'a str,
    provider: Option<&'a str>,
    status: JobStatus,
    started_at: Option<String>,
    finished_at: Option<String>,
    duration_s: Option<f64>,
    lives: u32,
    error: Option<&'a str>,
    usage: Value,
    progress: Progress,
    /// Where the journal ends of which this was made: a longer journal knows more.
    journal: JournalEnd,
    completed_steps: Vec<&'a str>,
    pending_steps: Vec<&'a str>,
    failures: Vec<FailureEntry<'a>>,
    files: &'a [FileState],
    steps: Steps<'a>,
}

#[derive(Serialize)]
struct Progress {
    done: usize,
    all: usize,
}

#[derive(Serialize)]
struct FailureEntry<'a> {
    step: &'a str,
    kind: Option<workflow_spec::FailureKind>,
    message: &'a str,
}

struct Steps<'a>(&'a Manifest);

impl Serialize for Steps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.steps.len()))?;
        for step in &self.0.steps {
            map.serialize_entry(&step.id, &StepEntry::of(step, &self.0.project))?;
        }
        map.end()
    }
}

/// A step in a document.
#[derive(Serialize)]
struct StepEntry<'a> {
    status: StepStatus,
    duration_s: Option<f64>,
    attempts: u32,
    cache: Option<super::CacheUse>,
    tokens: u64,
    /// After so many tokens the answer was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_at: Option<u64>,
    /// Paths in the run folder.
    artifacts: Vec<String>,
    /// Paths as the workflow writes them.
    files: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<workflow_spec::FailureKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a super::step::Question>,
}

impl<'a> StepEntry<'a> {
    fn of(step: &'a StepState, project: &str) -> Self {
        Self {
            status: step.status,
            duration_s: step.duration_s,
            attempts: step.attempts,
            cache: step.cache,
            tokens: step.tokens,
            cut_at: step.cut_at,
            artifacts: step.files.iter().map(|path| artifact(project, path)).collect(),
            files: &step.files,
            reason: step.skipped.as_deref(),
            failure: step
                .failure
                .as_ref()
                .filter(|_| step.status != StepStatus::Succeeded)
                .and_then(|it| it.kind),
            question: step.question.as_ref(),
        }
    }
}

fn artifact(project: &str, path: &str) -> String {
    format!("outputs/{project}/{path}")
}

impl Manifest {
    /// The text of `manifest.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec(&self.document()).expect("plain data with text keys always becomes JSON");
        text.push(b'\n');
        text
    }

    /// The same as a value, for whoever adds to it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self.document()).expect("plain data with text keys always becomes JSON")
    }

    /// All files by their paths in the run folder.
    pub(crate) fn artifacts(&self) -> Vec<String> {
        self.files.iter().map(|file| artifact(&self.project, &file.path)).collect()
    }

    fn document(&self) -> Document<'_> {
        let ids = |with: fn(&StepState) -> bool| {
            self.steps.iter().filter(move |step| with(step)).map(|step| step.id.as_str()).collect()
        };
        let (done, all) = self.progress();
        Document {
            job_id: &self.job_id,
            project: &self.project,
            provider: self.provider.as_deref(),
            status: self.status.unwrap_or_default(),
            started_at: self.started_at.map(show),
            finished_at: self.finished_at.map(show),
            duration_s: self.duration_s(),
            lives: self.lives,
            error: self.error.as_deref(),
            usage: json!({
                "prompt_tokens": self.usage.prompt,
                "completion_tokens": self.usage.completion,
                "cached_tokens": self.usage.cached,
                "total_tokens": self.usage.total(),
            }),
            progress: Progress { done, all },
            journal: self.journal,
            completed_steps: ids(|step| step.status == StepStatus::Succeeded),
            pending_steps: ids(StepState::is_pending),
            failures: self.failed_steps().map(failure).collect(),
            files: &self.files,
            steps: Steps(self),
        }
    }
}

impl StepState {
    /// What a resumed job has to do: whatever has not ended well, and was not ruled out.
    fn is_pending(&self) -> bool {
        use StepStatus::{Pending, Retrying, Running, Waiting};
        matches!(self.status, Pending | Running | Retrying | Waiting)
    }
}

fn failure(step: &StepState) -> FailureEntry<'_> {
    let failure = step.failure.as_ref();
    FailureEntry {
        step: &step.id,
        kind: failure.and_then(|failure| failure.kind),
        message: failure.map_or("", |failure| &failure.message),
    }
}
