//! How each event changes what is known.

use orch_core::UnixMicros;

use super::step::{CUT, Question};
use super::{CacheUse, FileState, JobStatus, JournalEnd, Manifest, StepFailure, StepState, StepStatus};
use crate::EventType;
use crate::journal::fact::{Fact, FactData, Text};

impl Manifest {
    /// Takes one event in. `journal_bytes` is where its line ends.
    pub(crate) fn apply(&mut self, fact: &Fact<'_>, journal_bytes: u64) {
        self.journal = JournalEnd { seq: fact.seq, bytes: journal_bytes };
        match fact.kind {
            Some(EventType::JobStarted | EventType::JobResumed) => self.begin_life(fact),
            Some(kind) if kind.ends_job() => self.end_life(kind, fact),
            Some(kind) => self.apply_to_step(kind, fact),
            None => {}
        }
        self.last_event = Some(fact.at);
    }

    fn begin_life(&mut self, fact: &Fact<'_>) {
        self.lived_s += self.this_life_s();
        self.life_began = Some(fact.at);
        self.started_at.get_or_insert(fact.at);
        self.finished_at = None;
        self.error = None;
        self.status = Some(JobStatus::Running);
        self.lives += 1;
        self.from_cache = 0;
        let data = &fact.data;
        self.project = owned(data.project.as_ref());
        self.provider = data.provider.as_deref().map(str::to_owned);
        self.spec_sha256 = data.spec_sha256.as_deref().map(str::to_owned);
        self.by_id.clear();
        self.keep_what_was_done();
        self.earlier.extend(self.steps.drain(..).map(|step| (step.id.clone(), step)));
        for id in &data.steps {
            self.entry(id).is_planned = true;
        }
    }

    fn end_life(&mut self, kind: EventType, fact: &Fact<'_>) {
        self.lived_s += fact
            .data
            .duration_s
            .unwrap_or_else(|| self.life_began.map_or(0.0, |began| fact.at.since(began).as_secs_f64()));
        self.life_began = None;
        self.keep_what_was_done();
        self.finished_at = (kind != EventType::JobWaiting).then_some(fact.at);
        self.error = fact.data.error.as_deref().map(str::to_owned);
        self.status = Some(match kind {
            EventType::JobSucceeded => JobStatus::Succeeded,
            EventType::JobCancelled => JobStatus::Cancelled,
            EventType::JobWaiting => JobStatus::Waiting,
            _ => JobStatus::Failed,
        });
    }

    /// Steps that a life did not come to are as an earlier one left them, where that was well.
    fn keep_what_was_done(&mut self) {
        for step in self.steps.iter_mut().filter(|step| step.status == StepStatus::Pending) {
            if let Some(earlier) = self.earlier.remove(&step.id).filter(StepState::is_done) {
                *step = StepState { is_planned: step.is_planned, ..earlier };
            }
        }
    }

    fn apply_to_step(&mut self, kind: EventType, fact: &Fact<'_>) {
        let Some(id) = fact.step.as_deref() else { return };
        let data = &fact.data;
        match kind {
            EventType::LlmResponse => self.count_tokens(id, data),
            EventType::FileWritten => self.count_file(id, data),
            EventType::CacheHit => {
                self.from_cache += 1;
                self.entry(id).cache = Some(CacheUse::Hit);
            }
            EventType::CacheMiss => self.entry(id).cache = Some(CacheUse::Miss),
            EventType::CacheJoined => self.entry(id).cache = Some(CacheUse::Joined),
            EventType::GateWaiting => self.entry(id).wait(data),
            EventType::GateDecided => self.decided(id),
            EventType::StepSkipped => self.skipped(id, data),
            EventType::StepStarted => self.entry(id).start(fact),
            EventType::StepSucceeded => self.entry(id).end(StepStatus::Succeeded, fact),
            EventType::StepFailed => self.entry(id).end(StepStatus::Failed, fact),
            EventType::StepCancelled => self.entry(id).end(StepStatus::Cancelled, fact),
            EventType::StepRetrying => self.entry(id).end(StepStatus::Retrying, fact),
            _ => {}
        }
    }

    fn entry(&mut self, id: &str) -> &mut StepState {
        if let Some(at) = self.by_id.get(id) {
            return &mut self.steps[*at];
        }
        self.by_id.insert(id.to_owned(), self.steps.len());
        self.steps.push(StepState::new(id, false));
        self.steps.last_mut().expect("it was put there in the line above")
    }

    fn count_tokens(&mut self, id: &str, data: &FactData<'_>) {
        let used = crate::TokenUse {
            prompt: data.tokens_in.unwrap_or(0),
            completion: data.tokens_out.unwrap_or(0),
            cached: data.tokens_cached.unwrap_or(0),
        };
        self.usage.add(used);
        let step = self.entry(id);
        step.tokens = step.tokens.saturating_add(used.total());
        step.cut_at = (data.finish_reason.as_deref() == Some(CUT)).then_some(used.completion);
    }

    fn count_file(&mut self, id: &str, data: &FactData<'_>) {
        let Some(path) = data.path.as_deref() else { return };
        let step = self.entry(id);
        if !step.files.iter().any(|known| known == path) {
            step.files.push(path.to_owned());
        }
        let file = FileState {
            path: path.to_owned(),
            sha256: owned(data.sha256.as_ref()),
            size_bytes: data.size_bytes.unwrap_or(0),
            media_type: data.media_type.as_deref().map(str::to_owned),
        };
        if let Some(at) = self.by_path.get(path) {
            self.files[*at] = file;
        } else {
            self.by_path.insert(path.to_owned(), self.files.len());
            self.files.push(file);
        }
    }

    /// A step that is not run: done before, or not to be done. What an earlier life knows of it still holds.
    fn skipped(&mut self, id: &str, data: &FactData<'_>) {
        let reason = data.reason.as_deref().unwrap_or_default();
        if reason != "resume" {
            let step = self.entry(id);
            step.status = StepStatus::Skipped;
            step.skipped = Some(reason.to_owned());
            return;
        }
        let earlier = self.earlier.remove(id).filter(|step| step.status == StepStatus::Succeeded);
        let step = self.entry(id);
        if let Some(earlier) = earlier {
            *step = StepState { is_planned: step.is_planned, ..earlier };
        }
        step.status = StepStatus::Succeeded;
        step.cache = Some(CacheUse::Resume);
    }

    /// The job's own question, such as that of its budget, is no step: it goes when it is answered.
    fn decided(&mut self, id: &str) {
        let step = self.entry(id);
        step.question = None;
        if step.status == StepStatus::Waiting {
            step.status = StepStatus::Running;
        }
        if !(step.is_planned || step.attempts > 0) {
            self.steps.retain(|step| step.id != id);
            self.by_id = self.steps.iter().enumerate().map(|(at, step)| (step.id.clone(), at)).collect();
        }
    }
}

impl StepState {
    fn start(&mut self, fact: &Fact<'_>) {
        self.status = StepStatus::Running;
        self.attempts = fact.attempt.unwrap_or(self.attempts + 1);
        self.started_at = Some(self.started_at.unwrap_or(fact.at));
        if let Some(key) = &fact.data.key {
            self.key = Some(key.to_string());
        }
    }

    fn end(&mut self, status: StepStatus, fact: &Fact<'_>) {
        let data = &fact.data;
        self.status = status;
        self.question = None;
        if let Some(attempt) = fact.attempt {
            self.attempts = self.attempts.max(attempt);
        }
        if status != StepStatus::Retrying {
            self.duration_s = data.duration_s.or_else(|| self.elapsed_s(fact.at));
        }
        if let Some(key) = &data.key {
            self.key = Some(key.to_string());
        }
        if status != StepStatus::Succeeded {
            self.failure = Some(StepFailure { kind: data.kind, message: owned(data.message.as_ref()) });
        }
        for file in &data.files {
            if !self.files.iter().any(|known| *known == *file.path) {
                self.files.push(file.path.to_string());
            }
        }
    }

    fn elapsed_s(&self, now: UnixMicros) -> Option<f64> {
        self.started_at.map(|started| now.since(started).as_secs_f64())
    }

    fn wait(&mut self, data: &FactData<'_>) {
        self.status = StepStatus::Waiting;
        self.question = Some(Question {
            message: owned(data.message.as_ref()),
            choices: data.choices.iter().map(|choice| choice.to_string()).collect(),
        });
    }
}

fn owned(text: Option<&Text<'_>>) -> String {
    text.map(|text| text.to_string()).unwrap_or_default()
}
