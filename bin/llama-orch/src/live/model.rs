//! A running job as its journal tells it: lines in, steps with their states out. Knows no clock and no terminal.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use workflow::{Event, EventType};
use workflow_spec::{Graph, Step};

/// What is known of a job.
#[derive(Debug, Default)]
pub(crate) struct JobPicture {
    pub(crate) job_id: String,
    pub(crate) steps: Vec<StepPicture>,
    by_id: HashMap<String, usize>,
    /// Tokens of finished requests.
    pub(crate) tokens: u64,
    pub(crate) from_cache: u64,
    /// The word of the event that ended the job.
    pub(crate) ended: Option<&'static str>,
    /// Something that should be seen for as long as the job runs.
    pub(crate) notice: Option<String>,
}

/// One step, or one child of a step that makes many.
#[derive(Debug)]
pub(crate) struct StepPicture {
    pub(crate) id: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: Vec<usize>,
    pub(crate) depth: usize,
    pub(crate) needs: Vec<String>,
    pub(crate) state: State,
    /// `provider/model` of the latest request.
    pub(crate) model: Option<String>,
    /// Tokens of finished requests.
    pub(crate) tokens: u64,
    /// After so many tokens its last answer was cut.
    pub(crate) cut_at: Option<u64>,
    /// Pieces of text of the request under way: about one a token.
    pub(crate) pieces: u64,
    pub(crate) attempt: u32,
    pub(crate) started: Option<Duration>,
    cached: bool,
}

/// How far a step is. Times are since the picture's beginning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Waiting,
    Running,
    Retrying { until: Duration, kind: String },
    AtGate { message: String, choices: Vec<String> },
    Done { took: Option<Duration>, cached: bool },
    Skipped { reason: String },
    Failed { kind: String, message: String },
    Cancelled,
}

impl State {
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Skipped { .. } | Self::Failed { .. } | Self::Cancelled)
    }

    /// Nothing of it is left to do.
    fn is_done(&self) -> bool {
        match self {
            Self::Done { .. } => true,
            Self::Skipped { reason } => reason != "upstream_failed",
            _ => false,
        }
    }

    /// Everything that nobody needs to look at any more.
    pub(crate) fn is_well(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Skipped { .. })
    }
}

impl JobPicture {
    /// Steps in the order of the file, each with what it needs.
    pub(crate) fn new(steps: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let mut picture = Self::default();
        for (id, needs) in steps {
            let at = picture.position(&id);
            picture.steps[at].needs = needs;
        }
        picture
    }

    /// The steps of a workflow, none begun.
    pub(crate) fn of(graph: &Graph) -> Self {
        let needs = |step: &Step| step.needs.iter().map(|need| graph.steps[*need].id.clone()).collect();
        Self::new(graph.steps.iter().map(|step| (step.id.clone(), needs(step))))
    }

    /// One more line of the journal, heard at `now`.
    pub(crate) fn hear(&mut self, event: &Event, now: Duration) {
        if self.job_id.is_empty() {
            self.job_id.clone_from(&event.job_id);
        }
        if event.kind.ends_job() {
            self.ended = Some(job_word(event.kind));
        }
        let Some(id) = event.step.as_deref() else { return };
        let at = self.position(id);
        let had_tokens = self.steps[at].tokens;
        self.steps[at].hear(event, now);
        self.tokens += self.steps[at].tokens - had_tokens;
        self.from_cache += u64::from(event.kind == EventType::CacheHit);
    }

    /// A piece of a step's answer.
    pub(crate) fn piece(&mut self, id: &str) {
        if let Some(at) = self.by_id.get(id) {
            self.steps[*at].pieces += 1;
        }
    }

    /// The steps of the file that are done, and all of them.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let top = self.steps.iter().filter(|step| step.parent.is_none());
        top.fold((0, 0), |(done, all), step| (done + usize::from(step.state.is_done()), all + 1))
    }

    /// The needs of a step that have not ended yet.
    pub(crate) fn waits_for<'a>(&'a self, step: &'a StepPicture) -> impl Iterator<Item = &'a str> {
        let is_open = |id: &&String| self.by_id.get(*id).is_none_or(|at| !self.steps[*at].state.is_over());
        step.needs.iter().filter(is_open).map(String::as_str)
    }

    /// Where a step lies; one that nobody has named before is made, below the step that makes it.
    fn position(&mut self, id: &str) -> usize {
        if let Some(at) = self.by_id.get(id) {
            return *at;
        }
        let parent = parent_of(id).map(|parent| self.position(parent));
        let at = self.steps.len();
        self.steps.push(StepPicture {
            id: id.to_owned(),
            parent,
            children: Vec::new(),
            depth: parent.map_or(0, |parent| self.steps[parent].depth + 1),
            needs: Vec::new(),
            state: State::Waiting,
            model: None,
            tokens: 0,
            cut_at: None,
            pieces: 0,
            attempt: 0,
            started: None,
            cached: false,
        });
        if let Some(parent) = parent {
            self.steps[parent].children.push(at);
        }
        self.by_id.insert(id.to_owned(), at);
        at
    }
}

impl StepPicture {
    /// Its own name, without that of the step that makes it.
    pub(crate) fn label(&self) -> &str {
        match parent_of(&self.id) {
            Some(parent) => self.id[parent.len()..].trim_start_matches('/'),
            None => &self.id,
        }
    }

    fn hear(&mut self, event: &Event, now: Duration) {
        let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| event.data.get(name).and_then(Value::as_u64).unwrap_or_default();
        match event.kind {
            EventType::StepStarted => {
                self.started.get_or_insert(now);
                self.attempt = event.attempt.unwrap_or(1);
                self.state = State::Running;
            }
            EventType::CacheHit | EventType::CacheJoined => self.cached = true,
            EventType::LlmRequest => {
                self.attempt = event.attempt.unwrap_or(self.attempt);
                self.state = State::Running;
                self.pieces = 0;
                self.model = Some(format!("{}/{}", text("provider"), text("model")));
            }
            EventType::LlmResponse => {
                self.tokens += number("tokens");
                self.cut_at = (text("finish_reason") == "length").then(|| number("tokens_out"));
                self.pieces = 0;
            }
            EventType::StepRetrying => {
                let delay = event.data.get("delay_s").and_then(Value::as_f64).unwrap_or_default();
                let delay = Duration::try_from_secs_f64(delay).unwrap_or_default();
                self.state = State::Retrying { until: now + delay, kind: text("kind") };
            }
            EventType::GateWaiting => {
                let choices = event.data.get("choices").and_then(Value::as_array);
                let words = choices.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
                self.state = State::AtGate { message: text("message"), choices: words.collect() };
            }
            EventType::StepSucceeded => {
                let took = event.data.get("duration_s").and_then(Value::as_f64);
                let took = took.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.state = State::Done { took, cached: self.cached };
            }
            EventType::StepSkipped => self.state = State::Skipped { reason: text("reason") },
            EventType::StepFailed => {
                self.state = State::Failed { kind: text("kind"), message: text("message") };
            }
            EventType::StepCancelled => self.state = State::Cancelled,
            _ => {}
        }
    }
}

/// The step that makes the step of this name: `name[0]` of a map, `name#0` of samples, `name/1/body` of a loop,
/// `name/step` of a workflow.
fn parent_of(id: &str) -> Option<&str> {
    if let Some(front) = id.strip_suffix(']') {
        return front.rfind('[').map(|at| &id[..at]);
    }
    let last = id.rfind(['/', '#'])?;
    let front = &id[..last];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match front.rsplit_once('/') {
        // A loop's iteration is no step of its own.
        Some((name, iteration)) if is_number(iteration) && id.as_bytes()[last] == b'/' => Some(name),
        _ => Some(front),
    }
}

const fn job_word(kind: EventType) -> &'static str {
    match kind {
        EventType::JobSucceeded => "succeeded",
        EventType::JobCancelled => "cancelled",
        EventType::JobWaiting => "waiting at a gate",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_named_after_the_step_that_makes_it() {
        for (id, parent) in [
            ("a", None),
            ("a[0]", Some("a")),
            ("a#2", Some("a")),
            ("a/1/body", Some("a")),
            ("a/step", Some("a")),
            ("a/step[3]", Some("a/step")),
            ("a/1/b/2/c", Some("a/1/b")),
            ("a[0]#1", Some("a[0]")),
            ("a[0]/step", Some("a[0]")),
        ] {
            assert_eq!(parent_of(id), parent, "{id}");
        }
    }
}
