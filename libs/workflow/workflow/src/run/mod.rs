//! A run: what it is given, and how it ends.

mod limits;
mod retry;
mod schedule;

use std::sync::Arc;

use serde_json::{Map, Value};
use workflow_spec::JobSpec;

use crate::{AskModel, AskService, RunProgram, Serving};

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
}

/// The world outside the run.
#[derive(Clone)]
pub struct Ports {
    pub models: Arc<dyn AskModel>,
    pub programs: Arc<dyn RunProgram>,
    pub services: Arc<dyn AskService>,
    pub serving: Option<Arc<dyn Serving>>,
    pub secrets: SecretSource,
}

/// The value of a secret by its name.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

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
}
