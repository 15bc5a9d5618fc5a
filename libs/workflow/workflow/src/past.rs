//! What earlier lives of a job have left: all that resuming it needs to know.

use std::collections::HashMap;

use workflow_spec::FailureKind;

use crate::budget::{BUDGET_GATE, CONTINUE};
use crate::journal::fact::{Fact, FactData};
use crate::manifest::{JobStatus, Manifest};
use crate::{EventType, TokenUse};

/// What the journal tells about the time before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Steps that succeeded, by key.
    pub succeeded: HashMap<String, Succeeded>,
    /// Every key under which an attempt was begun, and what became of the last one.
    pub tried: HashMap<String, Tried>,
    /// Decisions by the id of their gate, unless the gate has failed since.
    pub decided: HashMap<String, PastDecision>,
    /// How often somebody has said that the job may go on over its budget.
    pub budget_extensions: u64,
    /// What was known when the last life ended.
    pub manifest: Manifest,
    /// By step: the key of its last attempt.
    current: HashMap<String, String>,
    /// By path: digest and size of the file as it was last written.
    written: HashMap<String, (String, u64)>,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succeeded {
    pub step: String,
    /// Digest of the stored output.
    pub out: String,
    pub files: Vec<PastFile>,
}

/// A file that a step left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastFile {
    /// Below the project's outputs.
    pub path: String,
    pub sha256: String,
    /// `None` where the journal does not tell.
    pub size_bytes: Option<u64>,
}

/// An attempt of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub step: String,
    /// How many attempts there were in the last life.
    pub attempts: u32,
    /// How often one was begun, in all lives.
    pub begun: u32,
    pub outcome: PastOutcome,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastOutcome {
    /// The process that made it ended first: an effect may have happened or not.
    Unknown,
    Succeeded,
    Failed(Option<FailureKind>),
    Cancelled,
}

/// An answer to a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastDecision {
    pub choice: String,
    /// Of the gate's last attempt when it was answered: an edited gate asks anew.
    pub key: Option<String>,
    /// How often an attempt under that key had been begun by then.
    pub begun: u32,
}

impl Past {
    pub(crate) fn new(job_id: &str) -> Self {
        Self { manifest: Manifest::new(job_id), ..Self::default() }
    }

    /// How many processes have begun to run the job; 0 for a job that never began.
    pub fn lives(&self) -> u32 {
        self.manifest.lives
    }

    /// How the last life ended; [`JobStatus::Running`] where it did not, `None` for a job that never began.
    pub fn status(&self) -> Option<JobStatus> {
        self.manifest.status
    }

    /// Tokens that the job has used so far.
    pub fn usage(&self) -> TokenUse {
        self.manifest.usage
    }

    /// Files that a step of this name has left, as they were written last.
    pub(crate) fn left_by(&self, step: &str) -> Vec<PastFile> {
        let paths = self.manifest.step(step).map_or(&[][..], |step| &step.files);
        let as_written = |path: &String| {
            let (sha256, size_bytes) = self.written.get(path)?;
            Some(PastFile { path: path.clone(), sha256: sha256.clone(), size_bytes: Some(*size_bytes) })
        };
        paths.iter().filter_map(as_written).collect()
    }

    /// Keys of attempts that nobody saw end.
    pub fn unfinished(&self) -> impl Iterator<Item = (&str, &Tried)> {
        let unfinished = self.tried.iter().filter(|(_, tried)| tried.outcome == PastOutcome::Unknown);
        unfinished.map(|(key, tried)| (key.as_str(), tried))
    }

    pub(crate) fn apply(&mut self, fact: &Fact<'_>, journal_bytes: u64) {
        self.manifest.apply(fact, journal_bytes);
        let (Some(kind), Some(step)) = (fact.kind, fact.step.as_deref()) else { return };
        let data = &fact.data;
        match kind {
            EventType::StepStarted => self.started(step, fact.attempt.unwrap_or(1), data),
            EventType::StepSucceeded => self.succeeded(step, data),
            EventType::StepRetrying => self.ended(step, data, PastOutcome::Failed(data.kind)),
            EventType::StepFailed => {
                self.ended(step, data, PastOutcome::Failed(data.kind));
                // A decision is used up when its step fails: whoever goes on nevertheless is asked again.
                self.decided.remove(step);
            }
            EventType::StepCancelled => self.ended(step, data, PastOutcome::Cancelled),
            EventType::FileWritten => self.wrote(data),
            EventType::GateDecided => self.decided(step, data),
            _ => {}
        }
    }

    fn started(&mut self, step: &str, attempt: u32, data: &FactData<'_>) {
        let Some(key) = data.key.as_deref() else { return };
        match self.current.get_mut(step) {
            Some(current) if current == key => {}
            Some(current) => key.clone_into(current),
            None => {
                self.current.insert(step.to_owned(), key.to_owned());
            }
        }
        let begun = self.tried.get(key).map_or(1, |tried| tried.begun.saturating_add(1));
        let tried = Tried { step: step.to_owned(), attempts: attempt, begun, outcome: PastOutcome::Unknown };
        self.tried.insert(key.to_owned(), tried);
    }

    fn ended(&mut self, step: &str, data: &FactData<'_>, outcome: PastOutcome) {
        let key = data.key.as_deref().or_else(|| self.current.get(step).map(String::as_str));
        if let Some(tried) = key.and_then(|key| self.tried.get_mut(key)) {
            tried.outcome = outcome;
        }
    }

    fn succeeded(&mut self, step: &str, data: &FactData<'_>) {
        self.ended(step, data, PastOutcome::Succeeded);
        let (Some(key), Some(out)) = (data.key.as_deref(), data.out.as_deref()) else { return };
        let file = |file: &crate::journal::fact::FileFact<'_>| PastFile {
            path: file.path.to_string(),
            sha256: file.sha256.to_string(),
            size_bytes: self
                .written
                .get(&*file.path)
                .filter(|(sha256, _)| **sha256 == *file.sha256)
                .map(|(_, size)| *size),
        };
        let result = Succeeded {
            step: step.to_owned(),
            out: out.to_owned(),
            files: data.files.iter().map(file).collect(),
        };
        self.succeeded.insert(key.to_owned(), result);
    }

    fn wrote(&mut self, data: &FactData<'_>) {
        if let (Some(path), Some(sha256), Some(size)) = (&data.path, &data.sha256, data.size_bytes) {
            self.written.insert(path.to_string(), (sha256.to_string(), size));
        }
    }

    fn decided(&mut self, step: &str, data: &FactData<'_>) {
        let choice = data.choice.as_deref().unwrap_or_default().to_owned();
        if step == BUDGET_GATE && choice == CONTINUE {
            self.budget_extensions += 1;
        }
        let key = self.current.get(step).cloned();
        let begun = key.as_ref().and_then(|key| self.tried.get(key)).map_or(0, |tried| tried.begun);
        let decided = PastDecision { choice, key, begun };
        self.decided.insert(step.to_owned(), decided);
    }
}
