//! What a step does once its turn has come, apart from when that is.
//!
//! The driver renders a step into an [`Action`], makes its key, and only if no earlier result will do asks it to
//! perform. An action holds everything it needs: it can be asked again after a failure, and knows neither
//! journal, store nor other steps.

mod format;
mod gate;
mod program;
mod service;
mod sight;
#[cfg(test)]
mod tests;
mod working;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::task::task_tracker::TaskTrackerToken;
use workflow_spec::StepOutput;

#[allow(unused_imports, reason = "the driver that uses it comes next")]
pub(crate) use gate::Gate;
#[allow(unused_imports, reason = "the driver that uses it comes next")]
pub(crate) use program::ProgramAction;
#[allow(unused_imports, reason = "the driver that uses it comes next")]
pub(crate) use service::ServiceAction;
#[allow(unused_imports, reason = "the driver that uses it comes next")]
pub(crate) use sight::Sight;
pub(crate) use working::Collected;

use crate::run::Ports;
use crate::{CallFailure, FinishReason, PortFuture, TokenUse};

/// A step with every text rendered, ready to be done.
pub(crate) trait Action: Send + Sync {
    /// What the result depends on and nothing else: the step's key is this document's digest. Secrets stand in it
    /// by name.
    fn key_document(&self) -> Value;

    /// One attempt. Dropping the future ends what it does.
    fn perform(self: Arc<Self>, attempt: Attempt) -> PortFuture<Result<Performed, CallFailure>>;
}

/// The circumstances of one attempt.
pub(crate) struct Attempt {
    /// The step's id, with its place in maps and loops.
    pub(crate) step: Arc<str>,
    /// From 1, through all candidates.
    pub(crate) number: u32,
    /// Which of an `llm` step's candidates is asked.
    pub(crate) candidate: usize,
    pub(crate) ports: Ports,
    /// Where programs run and leave files.
    pub(crate) working: PathBuf,
    /// The step's text log, not yet there.
    pub(crate) log: PathBuf,
    /// The same for every attempt at one effect.
    pub(crate) idempotency_key: String,
    pub(crate) reports: Reports,
    /// Held by whatever goes on after the attempt was given up, so that the run can wait for it.
    pub(crate) alive: TaskTrackerToken,
}

/// What an attempt that succeeded leaves behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Performed {
    pub(crate) output: StepOutput,
    /// Files that a program left, for the step's own `files`.
    pub(crate) collected: Vec<Collected>,
    pub(crate) usage: TokenUse,
    /// Requests made to a provider.
    pub(crate) calls: u32,
    /// Whoever answered; empty for steps that ask no model.
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) finish: Option<FinishReason>,
    /// Good enough for this job, never for another: an answer that the token limit cut.
    pub(crate) only_for_this_job: bool,
}

/// What an attempt tells while it goes on.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// A request to a model leaves now.
    Asked { provider: String, model: String, prompt_tokens: u64, request_sha256: String },
    /// It was answered, or not.
    Answered { provider: String, duration: Duration, outcome: Result<Heard, CallFailure> },
}

/// The part of an answer that belongs into the journal.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) usage: TokenUse,
    pub(crate) first_token: Option<Duration>,
    pub(crate) finish: FinishReason,
}

/// An attempt's way to the driver and to whoever watches.
#[derive(Clone)]
pub(crate) struct Reports {
    report: Arc<dyn Fn(Report) + Send + Sync>,
    piece: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Reports {
    pub(crate) fn new(
        report: impl Fn(Report) + Send + Sync + 'static,
        piece: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { report: Arc::new(report), piece: Arc::new(piece) }
    }

    pub(crate) fn report(&self, report: Report) {
        (self.report)(report);
    }

    /// Text as it comes, for eyes only: nothing of it is kept.
    pub(crate) fn piece(&self, text: &str) {
        (self.piece)(text);
    }
}
