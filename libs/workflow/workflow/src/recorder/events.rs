//! One method for each event.

use std::time::Duration;

use serde::Serialize;
use workflow_spec::FailureKind;

use super::Recorder;
use crate::journal::fact::{FactData, FileFact, Text};
use crate::journal::line::Head;
use crate::manifest::CUT;
use crate::{EventType, FinishReason, Level, TokenUse};

/// What people and models write is cut to so many bytes: a line stays a line.
const LONGEST_TEXT: usize = 16 * 1024;

/// What is told when a job begins, again in each of its lives.
#[derive(Clone, Copy, Debug)]
pub struct JobFacts<'a> {
    pub project: &'a str,
    /// The provider of steps that name none.
    pub provider: &'a str,
    /// What the job is for, where an input says so.
    pub task: Option<&'a str>,
    pub spec_sha256: &'a str,
    /// The steps of the workflow, in its order.
    pub steps: &'a [&'a str],
}

/// How a step succeeded.
#[derive(Clone, Copy, Debug)]
pub struct StepResult<'a> {
    pub duration: Duration,
    /// Requests that were made for it.
    pub provider_calls: u32,
    /// Digest of the stored output.
    pub out: &'a str,
    pub key: &'a str,
    /// Path below the project's outputs, and digest, of each file.
    pub files: &'a [(&'a str, &'a str)],
}

/// How a model answered.
#[derive(Clone, Copy, Debug)]
pub struct ModelAnswered<'a> {
    pub provider: &'a str,
    pub duration: Duration,
    /// To the first token.
    pub first_token: Option<Duration>,
    /// Also what a failed attempt has cost.
    pub usage: TokenUse,
    /// `None` where it failed.
    pub finish: Option<FinishReason>,
}

/// A file that is in place.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FileEvent<'a> {
    /// Below the project's outputs.
    pub path: &'a str,
    /// Of the whole file.
    pub sha256: &'a str,
    pub size_bytes: u64,
    /// Whether the disk was written to.
    pub wrote: bool,
    /// `created`, `nochange`, `overwritten` or `appended`.
    pub reason: &'a str,
    pub media_type: &'a str,
}

/// Why a step is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It was done in an earlier life of the job.
    Resume,
    /// Its own condition, or that of a step which it needs, does not hold.
    Condition,
    /// Something that it needs has failed.
    UpstreamFailed,
}

impl SkipReason {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Condition => "condition",
            Self::UpstreamFailed => "upstream_failed",
        }
    }
}

/// A file as a step's last event names it.
#[derive(Serialize)]
struct FileLine<'a> {
    path: &'a str,
    sha256: &'a str,
}

/// Why something failed.
#[derive(Serialize)]
struct FailureLine<'a> {
    kind: FailureKind,
    message: &'a str,
    duration_s: f64,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    cache_key: &'a str,
}

#[derive(Serialize)]
struct ReasonedKeyLine<'a> {
    cache_key: &'a str,
    reason: &'a str,
}

impl Recorder {
    pub fn job_started(&mut self, facts: &JobFacts<'_>) {
        self.begin(EventType::JobStarted, facts);
    }

    pub fn job_resumed(&mut self, facts: &JobFacts<'_>) {
        self.begin(EventType::JobResumed, facts);
    }

    fn begin(&mut self, kind: EventType, facts: &JobFacts<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            project: &'a str,
            provider: &'a str,
            task: Option<&'a str>,
            spec_sha256: &'a str,
            engine_version: &'static str,
            steps: &'a [&'a str],
        }
        let line = Line {
            project: facts.project,
            provider: facts.provider,
            task: facts.task.map(shortened),
            spec_sha256: facts.spec_sha256,
            engine_version: env!("CARGO_PKG_VERSION"),
            steps: facts.steps,
        };
        let meaning = FactData {
            project: Some(facts.project.into()),
            provider: Some(facts.provider.into()),
            spec_sha256: Some(facts.spec_sha256.into()),
            steps: facts.steps.iter().map(|step| Text::from(*step)).collect(),
            ..FactData::default()
        };
        self.record(&Level::Info.head(kind), &line, meaning);
    }

    /// Only gates are left, and nobody waits for them here.
    pub fn job_waiting(&mut self, gates: &[&str], duration: Duration) {
        #[derive(Serialize)]
        struct Line<'a> {
            gates: &'a [&'a str],
            duration_s: f64,
        }
        let duration_s = seconds(duration);
        let meaning = FactData { duration_s: Some(duration_s), ..FactData::default() };
        self.record(&Level::Warn.head(EventType::JobWaiting), &Line { gates, duration_s }, meaning);
    }

    /// `duration` is that of this life.
    pub fn job_succeeded(&mut self, duration: Duration) {
        #[derive(Serialize)]
        struct Line {
            duration_s: f64,
            artifacts: Vec<String>,
            tokens: u64,
            from_cache: u32,
        }
        let manifest = self.manifest();
        let line = Line {
            duration_s: seconds(duration),
            artifacts: manifest.artifacts(),
            tokens: manifest.usage.total(),
            from_cache: manifest.from_cache,
        };
        let meaning = FactData { duration_s: Some(line.duration_s), ..FactData::default() };
        self.record(&Level::Info.head(EventType::JobSucceeded), &line, meaning);
    }

    pub fn job_failed(&mut self, error: &str, duration: Duration) {
        self.end_badly(&Level::Error.head(EventType::JobFailed), error, duration);
    }

    pub fn job_cancelled(&mut self, reason: &str, duration: Duration) {
        self.end_badly(&Level::Warn.head(EventType::JobCancelled), reason, duration);
    }

    fn end_badly(&mut self, head: &Head<'_>, error: &str, duration: Duration) {
        #[derive(Serialize)]
        struct Line<'a> {
            error: &'a str,
            failed_steps: Vec<String>,
            duration_s: f64,
        }
        let error = shortened(error);
        let line = Line {
            error,
            failed_steps: self.manifest().failed_steps().map(|step| step.id.clone()).collect(),
            duration_s: seconds(duration),
        };
        let meaning =
            FactData { error: Some(error.into()), duration_s: Some(line.duration_s), ..FactData::default() };
        self.record(head, &line, meaning);
    }

    pub fn step_started(&mut self, step: &str, attempt: u32, needs: &[&str], key: &str) {
        #[derive(Serialize)]
        struct Line<'a> {
            needs: &'a [&'a str],
            key: &'a str,
        }
        let head = Level::Info.head(EventType::StepStarted).step(step).attempt(attempt);
        let meaning = FactData { key: Some(key.into()), ..FactData::default() };
        self.record(&head, &Line { needs, key }, meaning);
    }

    pub fn step_succeeded(&mut self, step: &str, attempt: u32, result: &StepResult<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            duration_s: f64,
            provider_calls: u32,
            out: &'a str,
            files: Vec<FileLine<'a>>,
            key: &'a str,
        }
        let line = Line {
            duration_s: seconds(result.duration),
            provider_calls: result.provider_calls,
            out: result.out,
            files: result.files.iter().map(|(path, sha256)| FileLine { path, sha256 }).collect(),
            key: result.key,
        };
        let meaning = FactData {
            duration_s: Some(line.duration_s),
            out: Some(result.out.into()),
            key: Some(result.key.into()),
            files: result.files.iter().map(|(path, sha256)| FileFact::new(path, sha256)).collect(),
            ..FactData::default()
        };
        let head = Level::Info.head(EventType::StepSucceeded).step(step).attempt(attempt);
        self.record(&head, &line, meaning);
    }

    /// For good: no attempt follows. `duration` is that of the step.
    pub fn step_failed(
        &mut self,
        step: &str,
        attempt: u32,
        kind: FailureKind,
        message: &str,
        duration: Duration,
    ) {
        let head = Level::Error.head(EventType::StepFailed).step(step).attempt(attempt);
        self.end_step_badly(&head, kind, message, duration);
    }

    pub fn step_cancelled(&mut self, step: &str, attempt: u32, message: &str, duration: Duration) {
        let head = Level::Warn.head(EventType::StepCancelled).step(step).attempt(attempt);
        self.end_step_badly(&head, FailureKind::Cancelled, message, duration);
    }

    fn end_step_badly(&mut self, head: &Head<'_>, kind: FailureKind, message: &str, duration: Duration) {
        let message = shortened(message);
        let line = FailureLine { kind, message, duration_s: seconds(duration) };
        let meaning = FactData {
            kind: Some(kind),
            message: Some(message.into()),
            duration_s: Some(line.duration_s),
            ..FactData::default()
        };
        self.record(head, &line, meaning);
    }

    /// `attempt` is the one that failed; another one follows after `delay`.
    pub fn step_retrying(
        &mut self,
        step: &str,
        attempt: u32,
        kind: FailureKind,
        message: &str,
        delay: Duration,
    ) {
        #[derive(Serialize)]
        struct Line<'a> {
            kind: FailureKind,
            message: &'a str,
            delay_s: f64,
        }
        let message = shortened(message);
        let head = Level::Warn.head(EventType::StepRetrying).step(step).attempt(attempt);
        let meaning = FactData { kind: Some(kind), message: Some(message.into()), ..FactData::default() };
        self.record(&head, &Line { kind, message, delay_s: seconds(delay) }, meaning);
    }

    /// `out` is the digest of the output that stands for the step's, where there is one.
    pub fn step_skipped(&mut self, step: &str, reason: SkipReason, out: Option<&str>) {
        #[derive(Serialize)]
        struct Line<'a> {
            reason: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            out: Option<&'a str>,
        }
        let head = Level::Info.head(EventType::StepSkipped).step(step);
        let meaning =
            FactData { reason: Some(reason.word().into()), out: out.map(Into::into), ..FactData::default() };
        self.record(&head, &Line { reason: reason.word(), out }, meaning);
    }

    pub fn llm_request(
        &mut self,
        step: &str,
        attempt: u32,
        provider: &str,
        model: &str,
        prompt_tokens: Option<u64>,
        request_sha256: &str,
    ) {
        #[derive(Serialize)]
        struct Line<'a> {
            provider: &'a str,
            model: &'a str,
            prompt_tokens: Option<u64>,
            request_sha256: &'a str,
        }
        let head = Level::Info.head(EventType::LlmRequest).step(step).attempt(attempt);
        self.record_simply(&head, &Line { provider, model, prompt_tokens, request_sha256 });
    }

    pub fn llm_response(&mut self, step: &str, attempt: u32, answered: &ModelAnswered<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            provider: &'a str,
            duration_s: f64,
            ttft_s: Option<f64>,
            tokens_in: u64,
            tokens_out: u64,
            tokens_cached: u64,
            tokens: u64,
            finish_reason: Option<FinishReason>,
            success: bool,
        }
        let usage = answered.usage;
        let line = Line {
            provider: answered.provider,
            duration_s: seconds(answered.duration),
            ttft_s: answered.first_token.map(seconds),
            tokens_in: usage.prompt,
            tokens_out: usage.completion,
            tokens_cached: usage.cached,
            tokens: usage.total(),
            finish_reason: answered.finish,
            success: answered.finish.is_some(),
        };
        let is_cut = answered.finish == Some(FinishReason::Length);
        let level = if line.success && !is_cut { Level::Info } else { Level::Warn };
        let meaning = FactData {
            finish_reason: is_cut.then(|| CUT.into()),
            tokens_in: Some(usage.prompt),
            tokens_out: Some(usage.completion),
            tokens_cached: Some(usage.cached),
            ..FactData::default()
        };
        self.record(&level.head(EventType::LlmResponse).step(step).attempt(attempt), &line, meaning);
    }

    pub fn file_written(&mut self, step: &str, file: &FileEvent<'_>) {
        let meaning = FactData {
            path: Some(file.path.into()),
            sha256: Some(file.sha256.into()),
            size_bytes: Some(file.size_bytes),
            media_type: Some(file.media_type.into()),
            ..FactData::default()
        };
        self.record(&Level::Info.head(EventType::FileWritten).step(step), file, meaning);
    }

    pub fn file_refused(&mut self, step: &str, path: &str, message: &str) {
        #[derive(Serialize)]
        struct Line<'a> {
            path: &'a str,
            message: &'a str,
        }
        let line = Line { path: shortened(path), message: shortened(message) };
        self.record_simply(&Level::Error.head(EventType::FileRefused).step(step), &line);
    }

    pub fn cache_hit(&mut self, step: &str, cache_key: &str) {
        self.record_simply(&Level::Info.head(EventType::CacheHit).step(step), &KeyLine { cache_key });
    }

    pub fn cache_miss(&mut self, step: &str, cache_key: &str, why: &str) {
        let line = ReasonedKeyLine { cache_key, reason: shortened(why) };
        self.record_simply(&Level::Info.head(EventType::CacheMiss).step(step), &line);
    }

    pub fn cache_stored(&mut self, step: &str, cache_key: &str) {
        self.record_simply(&Level::Info.head(EventType::CacheStored).step(step), &KeyLine { cache_key });
    }

    pub fn cache_joined(&mut self, step: &str, cache_key: &str) {
        self.record_simply(&Level::Info.head(EventType::CacheJoined).step(step), &KeyLine { cache_key });
    }

    pub fn cache_refused(&mut self, step: &str, cache_key: &str, why: &str) {
        let line = ReasonedKeyLine { cache_key, reason: shortened(why) };
        self.record_simply(&Level::Warn.head(EventType::CacheRefused).step(step), &line);
    }

    pub fn gate_waiting(&mut self, step: &str, message: &str, choices: &[&str]) {
        #[derive(Serialize)]
        struct Line<'a> {
            message: &'a str,
            choices: &'a [&'a str],
        }
        let message = shortened(message);
        let meaning = FactData {
            message: Some(message.into()),
            choices: choices.iter().map(|choice| Text::from(*choice)).collect(),
            ..FactData::default()
        };
        let head = Level::Warn.head(EventType::GateWaiting).step(step);
        self.record(&head, &Line { message, choices }, meaning);
    }

    /// `by` says who decided, where that is known.
    pub fn gate_decided(&mut self, step: &str, choice: &str, by: Option<&str>) {
        #[derive(Serialize)]
        struct Line<'a> {
            choice: &'a str,
            by: Option<&'a str>,
        }
        let meaning = FactData { choice: Some(choice.into()), ..FactData::default() };
        let head = Level::Info.head(EventType::GateDecided).step(step);
        self.record(&head, &Line { choice, by: by.map(shortened) }, meaning);
    }

    pub fn map_expanded(&mut self, step: &str, count: usize) {
        #[derive(Serialize)]
        struct Line {
            count: usize,
        }
        self.record_simply(&Level::Info.head(EventType::MapExpanded).step(step), &Line { count });
    }

    /// `iteration` counts from 1 and is about to begin.
    pub fn loop_iterated(&mut self, step: &str, iteration: u32) {
        #[derive(Serialize)]
        struct Line {
            iteration: u32,
        }
        self.record_simply(&Level::Info.head(EventType::LoopIterated).step(step), &Line { iteration });
    }

    pub fn budget_exceeded(&mut self, limit: u64, used: u64) {
        #[derive(Serialize)]
        struct Line {
            limit: u64,
            used: u64,
        }
        self.record_simply(&Level::Error.head(EventType::BudgetExceeded), &Line { limit, used });
    }

    pub(super) fn journal_repaired(&mut self, bytes: u64) {
        #[derive(Serialize)]
        struct Line {
            bytes: u64,
        }
        self.record_simply(&Level::Warn.head(EventType::JournalRepaired), &Line { bytes });
    }
}

/// To the microsecond: what a clock can tell.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The beginning of a text that may be of any length.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}
