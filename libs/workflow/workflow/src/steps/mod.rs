//! What a step does once its turn has come, apart from when that is.
//!
//! The driver renders a step into an [`Action`], makes its key, and only if no earlier result will do asks it to
//! perform. An action holds everything it needs: it can be asked again after a failure, and knows neither
//! journal, store nor other steps.

mod format;
mod gate;
mod model;
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
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use workflow_spec::{FailureKind, StepOutput};

pub(crate) use gate::Gate;
pub(crate) use model::{AskAction, Place, Shape};
pub(crate) use program::ProgramAction;
pub(crate) use service::ServiceAction;
pub(crate) use sight::Sight;
pub(crate) use working::Collected;

use crate::key::Digest;
use crate::ports::Ports;
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
    /// Whoever answered; empty for steps that ask no model.
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) finish: Option<FinishReason>,
    /// Good enough for this job, never for another: an answer that the token limit cut.
    pub(crate) only_for_this_job: bool,
}

/// What an attempt tells the driver while it goes on.
#[derive(Debug)]
pub(crate) enum Report {
    /// A request to a model is about to leave. It waits until the journal says so.
    Asking(Asking, oneshot::Sender<Result<(), CallFailure>>),
    /// It was answered, or not.
    Answered { provider: Arc<str>, duration: Duration, outcome: Result<AnswerFacts, CallFailure> },
}

/// A request, as the journal knows it.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) provider: Arc<str>,
    pub(crate) model: String,
    /// An estimate: how many they are is known by the answer.
    pub(crate) prompt_tokens: u64,
    pub(crate) request_sha256: Digest,
}

/// The part of an answer that belongs into the journal.
#[derive(Clone, Debug)]
pub(crate) struct AnswerFacts {
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

    /// Returns when the journal holds that the request leaves, or with the reason why it must not.
    pub(crate) async fn asking(&self, asking: Asking) -> Result<(), CallFailure> {
        let (written, is_written) = oneshot::channel();
        (self.report)(Report::Asking(asking, written));
        // A driver that is gone writes nothing any more, and ends this attempt.
        let gone = |_| CallFailure::new(FailureKind::Cancelled, "the run has ended");
        is_written.await.map_err(gone)?
    }

    pub(crate) fn answered(
        &self,
        provider: Arc<str>,
        duration: Duration,
        outcome: Result<AnswerFacts, CallFailure>,
    ) {
        (self.report)(Report::Answered { provider, duration, outcome });
    }

    /// Text as it comes, for eyes only: nothing of it is kept.
    pub(crate) fn piece(&self, text: &str) {
        (self.piece)(text);
    }
}
