//! Workflows of a control plane.

use http::Method;
use orch_core::Failure;
use serde_json::{Value, json};

use super::Client;
use super::sse::{SentEvent, StreamEnd};
use super::wire::ANSWER_LIMIT;
use crate::{JobAccepted, JobDecision, JobRequest, JobSummary, ResumeRequest, paths};

impl Client {
    /// Submits a workflow. The same one under the same id is the same job.
    pub async fn submit_job(&self, request: &JobRequest) -> Result<JobAccepted, Failure> {
        self.post(paths::JOBS, request).await
    }

    /// The newest jobs, newest first.
    pub async fn jobs(&self, limit: usize) -> Result<Vec<JobSummary>, Failure> {
        self.get(&format!("{}?limit={limit}", paths::JOBS), ANSWER_LIMIT).await
    }

    /// The document of `show --json`.
    pub async fn job(&self, id: &str) -> Result<Value, Failure> {
        self.get(&paths::fill(paths::JOB, &[id]), ANSWER_LIMIT).await
    }

    /// Ends a job; one that has ended stays as it is.
    pub async fn cancel_job(&self, id: &str) -> Result<(), Failure> {
        self.call(Method::POST, &paths::fill(paths::JOB_CANCEL, &[id]), None, ANSWER_LIMIT).await
    }

    /// Goes on with a job that nobody works on.
    pub async fn resume_job(&self, id: &str, request: &ResumeRequest) -> Result<JobAccepted, Failure> {
        self.post(&paths::fill(paths::JOB_RESUME, &[id]), request).await
    }

    /// Answers a gate.
    pub async fn decide_job(&self, id: &str, decision: &JobDecision) -> Result<(), Failure> {
        let path = paths::fill(paths::JOB_DECIDE, &[id]);
        self.call(Method::POST, &path, Some(json!(decision)), ANSWER_LIMIT).await
    }

    /// Hands over the journal of a job, line by line, from behind `after` on, until `each` has seen enough (it
    /// answers `false`) or the stream ends: the job has ended, or the server goes.
    pub async fn job_events(
        &self,
        id: &str,
        after: u64,
        each: &mut (dyn FnMut(SentEvent) -> bool + Send),
    ) -> Result<StreamEnd, Failure> {
        let last = (after > 0).then(|| after.to_string());
        self.listen(&paths::fill(paths::JOB_EVENTS, &[id]), last.as_deref(), each).await
    }
}
