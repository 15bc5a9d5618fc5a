//! Attempts: begun, heard of, and what comes after one that failed.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::driver::{Driver, Heard};
use super::nodes::{NodeRef, NodeResult, Source, State, Work};
use super::retry::{Next, Standing, after_failure, jitter};
use super::tasks::{Launch, Made, Task};
use super::timers::Alarm;
use crate::key::Digest;
use crate::recorder::ModelAnswered;
use crate::steps::{Attempt, Report, Reports};
use crate::store::Leader;
use crate::{CallFailure, TokenUse};

impl Driver {
    pub(super) fn begin_attempt(&mut self, at: NodeRef, mut work: Box<Work>, leader: Option<Leader>) {
        let node = self.scopes.node(at);
        let Some(places) = node.way.lane(work.candidate).and_then(|lane| self.limits.take(lane)) else {
            // Somebody else has the place by now; the turn comes again.
            self.scopes.set_state(at, State::Retrying(work));
            return self.enqueue(at);
        };
        let limit = self.limit_of_attempt(at, &work);
        work.places = Some(places);
        work.attempt += 1;
        work.tries += 1;
        self.announce(at, &mut work);
        if work.attempt == 1 && leader.is_some() {
            let (id, key) = (self.scopes.node(at).id.clone(), work.document.key());
            let refused = work.refused.as_ref().map(|why| format!("the stored result was refused: {why}"));
            let why = refused.as_deref().unwrap_or("no result is stored under this key");
            self.recorder.cache_miss(&id, key.as_str(), why);
        }
        let task = Task {
            node: at,
            action: work.action.clone(),
            attempt: self.attempt(at, &work),
            limit,
            on_disk: self.has_effect(at).then(|| self.durable.when_covered(self.recorder.length())),
            keeper: self.results.keeper(work.document.clone(), work.kept),
            leader,
            tell: self.tell.clone(),
        };
        self.scopes.set_state(at, State::Running(work));
        self.prepare_those_after(at);
        self.launch_later(at, task.run());
    }

    pub(super) fn launch_later(&mut self, node: NodeRef, task: impl Future<Output = ()> + Send + 'static) {
        self.launches.push(Launch { node, task: Box::pin(task) });
    }

    fn attempt(&self, at: NodeRef, work: &Work) -> Attempt {
        let node = self.scopes.node(at);
        let (tell, number) = (self.tell.clone(), work.attempt);
        let (watch, step) = (self.watch.clone(), node.id.clone());
        let report = move |report| {
            // A driver that has ended does not want to know.
            let _driver_is_gone = tell.send(Heard::Reported(at, number, report));
        };
        let folder = self.run_path();
        Attempt {
            number,
            candidate: work.candidate,
            ports: self.ports.clone(),
            working: working_folder(&working_folders(&folder), &node.id, number),
            log: folder.join("logs").join(log_name(&node.id)),
            idempotency_key: format!("{}-{}", self.recorder.folder().id(), work.document.key()),
            reports: Reports::new(report, move |text| watch.piece(&step, text)),
            alive: self.alive.token(),
        }
    }

    /// The attempt's own limit, or what is left of the step's.
    fn limit_of_attempt(&self, at: NodeRef, work: &Work) -> Duration {
        let timeout = self.scopes.node(at).step.timeout;
        self.time_left(at, work).map_or(timeout, |left| left.min(timeout))
    }

    fn time_left(&self, at: NodeRef, work: &Work) -> Option<Duration> {
        let deadline = self.scopes.node(at).step.deadline?;
        Some(deadline.saturating_sub(work.since.elapsed()))
    }

    pub(super) fn reported(&mut self, at: NodeRef, attempt: u32, report: Report) {
        let Some(scope) = self.scopes.get_mut(at.scope) else { return };
        let node = &mut scope.nodes[at.index as usize];
        match report {
            Report::Asking(asking, written) => {
                if let Some(refusal) = self.funds.refusal() {
                    // An attempt that was given up does not wait any more.
                    let _nobody_waits = written.send(Err(refusal));
                    return self.tell_of_budget();
                }
                if let State::Running(work) = &mut node.state {
                    work.calls += 1;
                    let request = asking.request_sha256.as_str();
                    let tokens = Some(asking.prompt_tokens);
                    let (provider, model) = (&asking.provider, &asking.model);
                    self.recorder.llm_request(&node.id, attempt, provider, model, tokens, request);
                    self.let_go_when_written(written);
                }
            }
            Report::Answered { provider, duration, outcome } => {
                let (usage, first_token, finish) = match &outcome {
                    Ok(facts) => (facts.usage, facts.first_token, Some(facts.finish)),
                    Err(failure) => (failure.usage, None, None),
                };
                let answered = ModelAnswered { provider: &provider, duration, first_token, usage, finish };
                self.recorder.llm_response(&node.id, attempt, &answered);
                self.spent(usage);
            }
        }
    }

    /// Tokens that the job has used.
    fn spent(&mut self, usage: TokenUse) {
        self.funds.spend(usage.total());
    }

    pub(super) fn attempted(&mut self, at: NodeRef, attempt: u32, result: Result<Box<Made>, CallFailure>) {
        let is_it = |state: &State| matches!(state, State::Running(work) if work.attempt == attempt);
        let Some(mut work) = self.take_work(at, is_it) else { return };
        work.task = None;
        match result {
            Ok(made) => self.made(at, *work, *made),
            Err(failure) => self.attempt_failed(at, work, &failure),
        }
    }

    fn made(&mut self, at: NodeRef, mut work: Work, made: Made) {
        if made.is_shared {
            let key = made.entry.key();
            self.results.uses(key);
            self.recorder.cache_stored(&self.scopes.node(at).id, key.as_str());
        }
        let places = work.places.take();
        let entry = std::sync::Arc::unwrap_or_clone(made.entry);
        let result = NodeResult { places, ..NodeResult::of_entry(entry, &work, Source::Made) };
        self.settle(at, NodeResult { calls: work.calls, ..result });
    }

    fn attempt_failed(&mut self, at: NodeRef, mut work: Box<Work>, failure: &CallFailure) {
        work.places = None;
        self.pause.look();
        if self.pause.is_on() && !self.has_effect(at) {
            // It may have failed of the end of this very process: the next one tries it again.
            self.scopes.set_state(at, State::Retrying(work));
            return;
        }
        if failure.unsure && self.has_effect(at) {
            return self.ask_what_became(at, work, &failure.message);
        }
        let node = self.scopes.node(at);
        let step = node.step.clone();
        let next_candidate = match &step.kind {
            workflow_spec::StepKind::Llm(llm) => llm.candidates.get(work.candidate + 1),
            _ => None,
        };
        let standing = Standing {
            policy: &step.retry,
            tries: work.tries,
            at_circuits: work.at_circuits,
            next_candidate,
            time_left: self.time_left(at, &work),
            jitter: jitter(self.recorder.folder().id().as_str(), &node.id, work.attempt),
        };
        let delay = match after_failure(failure, &standing) {
            Next::Fail => return self.fail(at, *work, failure),
            Next::Fallback => {
                work.candidate += 1;
                work.tries = 0;
                Duration::ZERO
            }
            Next::Again { delay } => delay,
            Next::WhenCircuitCloses { delay } => {
                work.tries -= 1;
                work.at_circuits += delay;
                delay
            }
        };
        let id = node.id.clone();
        if work.stale {
            self.forget_failed_facts(at);
        }
        self.recorder.step_retrying(&id, work.attempt, failure.kind, &failure.message, delay);
        self.scopes.set_state(at, State::Retrying(work));
        if delay.is_zero() {
            self.enqueue(at);
        } else {
            self.timers.set(Instant::now() + delay, Alarm::Retry(at));
        }
    }
}

/// Where the working folders of a run lie. None outlives its program, unless the run was killed.
pub(super) fn working_folders(run: &Path) -> PathBuf {
    run.join(".work")
}

/// A name of one folder, whatever the step is called.
fn working_folder(work: &Path, step: &str, attempt: u32) -> PathBuf {
    let digest = Digest::of(step.as_bytes());
    work.join(&digest.as_str()[..16]).join(attempt.to_string())
}

/// `<step>.log`, as a name that every system allows.
pub(crate) fn log_name(step: &str) -> String {
    const LONGEST: usize = 120;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-[]#".contains(c);
    let plain: String = step.chars().map(|c| if allowed(c) { c } else { '~' }).collect();
    if plain == step && plain.len() <= LONGEST {
        return format!("{plain}.log");
    }
    // Two steps whose names differ only in what is not allowed still have two logs.
    let digest = Digest::of(step.as_bytes());
    let kept: String = plain.chars().take(LONGEST).collect();
    format!("{kept}~{}.log", &digest.as_str()[..8])
}
