//! A step's end: told once, then counted. What it means for the steps that need it, for its scope, and for the
//! step that its scope makes up.

use std::sync::Arc;

use tokio::time::Instant;
use workflow_spec::{FailureKind, OnError, StepOutput};

use super::driver::{Driver, Heard};
use super::limits::Places;
use super::nodes::{Ending, Failed, Form, Layer, Node, NodeRef, NodeResult, Source, State, Stop, Work};
use super::publishing::{Published, Publishing};
use crate::CallFailure;
use crate::past::PastFile;
use crate::recorder::{FileEvent, SkipReason, StepResult};
use crate::store::Entry;

/// A node that is over, on its way to count.
pub(super) struct Ended {
    node: NodeRef,
    ending: Ending,
    output: Option<Arc<StepOutput>>,
    _places: Option<Places>,
}

impl NodeResult {
    pub(super) fn of_entry(entry: Entry, work: &Work, source: Source) -> Self {
        Self {
            out: entry.out(),
            key: entry.key(),
            blobs: entry.blobs.clone(),
            output: Arc::new(entry.into_output()),
            source,
            since: work.since,
            attempt: work.announced.max(1),
            calls: work.calls,
            places: None,
        }
    }
}

impl Driver {
    /// A node has its output: its files come into place, then it has succeeded.
    pub(super) fn settle(&mut self, at: NodeRef, result: NodeResult) {
        let node = self.scopes.node(at);
        // Only what a step itself does has files: a map's elements, not the map.
        if node.step.files.is_empty() || node.is_made_of_others() || result.source == Source::Otherwise {
            return self.succeed(at, result, &[]);
        }
        let publishing = Publishing {
            step: node.id.clone(),
            rules: node.step.clone(),
            names: self.names(at),
            output: result.output.clone(),
            blobs: result.blobs.clone(),
            past: self.past_files(&result),
            own: self.past.left_by(&node.id),
            stores: self.results.stores(),
        };
        self.scopes.set_state(at, State::Settling(Box::new(result)));
        let (publisher, tell) = (self.publisher.clone(), self.tell.clone());
        tokio::task::spawn_blocking(move || {
            // A driver that has ended does not want to know.
            let _driver_is_gone = tell.send(Heard::Published(at, publisher.publish(&publishing)));
        });
    }

    /// The files of a result that an earlier life has left.
    fn past_files(&self, result: &NodeResult) -> Vec<PastFile> {
        let past = self.past.succeeded.get(result.key.as_str());
        past.filter(|_| result.source == Source::Resume).map(|past| past.files.clone()).unwrap_or_default()
    }

    pub(super) fn published(&mut self, at: NodeRef, published: Published) {
        let State::Settling(result) = self.scopes.set_state(at, State::Pending) else { return };
        let id = self.scopes.node(at).id.clone();
        for path in published.kept {
            self.written.add(path);
        }
        for file in &published.written {
            self.written.add(file.path.clone());
            // What an earlier life has told is not told again.
            if file.wrote || result.source != Source::Resume {
                self.recorder.file_written(&id, &FileEvent::from(file));
            }
        }
        match published.failure {
            None => {
                let files: Vec<(&str, &str)> =
                    published.written.iter().map(|file| (file.path.as_str(), file.sha256.as_str())).collect();
                self.succeed(at, *result, &files);
            }
            Some(failure) => {
                if let Some(path) = &failure.refused {
                    self.recorder.file_refused(&id, path, &failure.failure.message);
                }
                self.fail_with(at, result.attempt, result.since, &failure.failure, result.places);
            }
        }
    }

    fn succeed(&mut self, at: NodeRef, result: NodeResult, files: &[(&str, &str)]) {
        let id = &self.scopes.node(at).id;
        let out = result.out.as_str();
        match result.source {
            Source::Made => self.recorder.step_succeeded(
                id,
                result.attempt,
                &StepResult {
                    duration: result.since.elapsed(),
                    provider_calls: result.calls,
                    out,
                    key: result.key.as_str(),
                    files,
                },
            ),
            Source::Resume => self.recorder.step_skipped(id, SkipReason::Resume, Some(out)),
            Source::Otherwise => self.recorder.step_skipped(id, SkipReason::Condition, Some(out)),
        }
        self.finish(Ended {
            node: at,
            ending: Ending::Well,
            output: Some(result.output),
            _places: result.places,
        });
    }

    pub(super) fn skip(&mut self, at: NodeRef, reason: SkipReason) {
        self.recorder.step_skipped(&self.scopes.node(at).id, reason, None);
        self.finish(Ended { node: at, ending: Ending::Skipped(reason), output: None, _places: None });
    }

    /// A step that a forecast leaves undone, and so whatever needs it.
    pub(super) fn leave(&mut self, at: NodeRef) {
        self.skip(at, SkipReason::UpstreamFailed);
    }

    /// A step that cannot even begin.
    pub(super) fn fail_unbegun(&mut self, at: NodeRef, failure: &CallFailure) {
        self.fail_with(at, 1, Instant::now(), failure, None);
    }

    pub(super) fn fail(&mut self, at: NodeRef, work: Work, failure: &CallFailure) {
        self.results.keep_request(work.document.clone());
        self.fail_with(at, work.attempt.max(1), work.since, failure, work.places);
    }

    pub(super) fn fail_with(
        &mut self,
        at: NodeRef,
        attempt: u32,
        since: Instant,
        failure: &CallFailure,
        places: Option<Places>,
    ) {
        let tolerated = self.is_tolerated(at);
        let scope = self.scopes.of_mut(at);
        let id = scope.nodes[at.index as usize].id.clone();
        self.recorder.step_failed(&id, attempt, failure.kind, &failure.message, since.elapsed());
        if !tolerated {
            scope.failure.get_or_insert_with(|| Failed {
                step: id,
                kind: failure.kind,
                message: failure.message.clone(),
            });
        }
        self.finish(Ended { node: at, ending: Ending::Failed, output: None, _places: places });
    }

    /// Ends a step that had begun and is not to go on.
    pub(super) fn cancel_node(&mut self, at: NodeRef, reason: &str) {
        match self.scopes.set_state(at, State::Pending) {
            State::Running(work) | State::Retrying(work) | State::Following(work) if work.announced > 0 => {
                if let Some(task) = &work.task {
                    task.abort();
                }
                self.launches.retain(|launch| launch.node != at);
                let id = self.scopes.node(at).id.clone();
                let (attempt, took) = (work.attempt.max(1), work.since.elapsed());
                if self.over.is_some() {
                    self.recorder.step_failed(&id, attempt, FailureKind::Timeout, reason, took);
                } else {
                    self.recorder.step_cancelled(&id, attempt, reason, took);
                }
                self.finish(Ended { node: at, ending: Ending::Cancelled, output: None, _places: None });
            }
            // Not begun: it stays as it is, for the next life.
            State::Asking | State::Retrying(_) | State::Following(_) | State::Running(_) => {}
            other => {
                self.scopes.set_state(at, other);
            }
        }
    }

    /// The end of a node that others make up.
    pub(super) fn cancel_made_up(&mut self, at: NodeRef, since: Instant, reason: &str) {
        let id = self.scopes.node(at).id.clone();
        self.recorder.step_cancelled(&id, 1, reason, since.elapsed());
        self.finish(Ended { node: at, ending: Ending::Cancelled, output: None, _places: None });
    }

    /// An end counts at once, or strictly when it is on the disk.
    fn finish(&mut self, ended: Ended) {
        if self.durable.is_strict() {
            self.scopes.set_state(ended.node, State::Syncing);
            self.durable.wait(self.recorder.length(), ended);
        } else {
            self.release(ended);
        }
    }

    /// From here on it counts: those who need it may begin, and its place is free.
    pub(super) fn release(&mut self, ended: Ended) {
        let Ended { node: at, ending, output, _places } = ended;
        if let Some(output) = output {
            self.scopes.of(at).set_output(at.index as usize, output);
        }
        self.scopes.set_state(at, State::Ended(ending));
        self.tell_dependents(at, ending);
        if ending == Ending::Failed && !self.is_tolerated(at) && self.foresee.is_none() {
            match self.on_error(at) {
                OnError::Continue => {}
                OnError::Drain => self.stop(at.scope),
                OnError::Cancel => {
                    let reason = format!("the step {} has failed", self.scopes.node(at).id);
                    self.cancel_scope(at.scope, &reason);
                }
            }
        }
        self.settle_scope(at.scope);
    }

    fn tell_dependents(&mut self, at: NodeRef, ending: Ending) {
        let blocked = match ending {
            Ending::Well => None,
            Ending::Skipped(SkipReason::Condition) => Some(SkipReason::Condition),
            Ending::Skipped(_) | Ending::Failed => Some(SkipReason::UpstreamFailed),
            // Nothing begins here any more: what needs it is left for the next life.
            Ending::Cancelled => return,
        };
        let scope = self.scopes.of_mut(at);
        let Some(plan) = scope.plan().cloned() else { return };
        for &dependent in &plan.dependents[at.index as usize] {
            let node = &mut self.scopes.of_mut(at).nodes[dependent];
            node.missing -= 1;
            if node.blocked != Some(SkipReason::UpstreamFailed) {
                node.blocked = blocked.or(node.blocked);
            }
            if node.missing == 0 {
                self.enqueue(NodeRef { scope: at.scope, index: dependent as u32 });
            }
        }
    }

    /// What a failure of this step does to the rest.
    fn on_error(&self, at: NodeRef) -> OnError {
        let scope = self.scopes.of(at);
        scope.nodes[at.index as usize].step.on_error.unwrap_or(scope.on_error)
    }

    /// The failure of one element leaves a gap in the list, where the map says that it may.
    fn is_tolerated(&self, at: NodeRef) -> bool {
        let scope = self.scopes.of(at);
        let node = &scope.nodes[at.index as usize];
        matches!(scope.form, Form::Copies)
            && node.layer != Layer::Whole
            && node.step.on_error == Some(OnError::Continue)
    }

    /// No further step of the scope begins; those that have begun go on.
    pub(super) fn stop(&mut self, scope: u32) {
        let below = self.scopes.below(scope);
        for &each in &below {
            let Some(found) = self.scopes.get_mut(each) else { continue };
            let why = if each == scope { Stop::OwnFailure } else { Stop::FromOutside };
            found.stop.get_or_insert(why);
        }
        for each in below {
            if each != scope {
                self.settle_scope(each);
            }
        }
    }

    /// Everything that goes on in the scope ends now.
    pub(super) fn cancel_scope(&mut self, scope: u32, reason: &str) {
        let below = self.scopes.below(scope);
        for &each in &below {
            let Some(found) = self.scopes.get_mut(each) else { continue };
            let why = if each == scope { Stop::OwnFailure } else { Stop::FromOutside };
            found.stop.get_or_insert(why);
        }
        for each in below {
            let Some(found) = self.scopes.get(each) else { continue };
            for index in 0..found.nodes.len() as u32 {
                let at = NodeRef { scope: each, index };
                if self.scopes.get(each).is_some_and(|scope| scope.nodes[index as usize].state.is_busy()) {
                    self.cancel_node(at, reason);
                }
            }
            if each != scope {
                self.settle_scope(each);
            }
        }
    }

    pub(super) fn cancel_job(&mut self, reason: &str) {
        self.cancelled = Some(reason.to_owned());
        self.cancel_scope(0, reason);
    }

    /// The job's time is over.
    pub(super) fn end_by_wall(&mut self) {
        let limit = self.job.spec.limits.wall.unwrap_or_default();
        let reason = format!("the job took longer than limits.wall allows: {} s", limit.as_secs_f64());
        self.over = Some(reason.clone());
        self.cancel_scope(0, &reason);
    }

    /// What a scope makes up has ended when nothing more happens in it.
    pub(super) fn settle_scope(&mut self, scope: u32) {
        let Some(found) = self.scopes.get(scope) else { return };
        if scope == 0 || !found.is_settled() {
            return;
        }
        if let Some(scope) = self.scopes.remove(scope) {
            for node in &scope.nodes {
                self.close_gate(node);
            }
            self.conclude(&scope);
        }
    }

    /// A gate of which nobody needs the decision any more.
    pub(super) fn close_gate(&mut self, node: &Node) {
        if let State::Deciding(open) = &node.state {
            let why = "the job ended before anybody decided";
            self.recorder.step_cancelled(&node.id, 1, why, open.since.elapsed());
        }
    }
}
