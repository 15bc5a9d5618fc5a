//! What one step did, life by life of its job, as the journal tells it.

use serde::Deserialize;
use workflow_spec::FailureKind;

use crate::EventType;
use crate::key::Key;
use crate::views::{JournalLine, Tail, TailError};

/// A step in one life of its job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Turn {
    pub key: Option<Key>,
    pub cache: Cache,
    pub outcome: Outcome,
    /// It is a map, a loop or a workflow: what ran are the steps inside.
    pub has_parts: bool,
}

/// What the store had under the step's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cache {
    /// Nobody looked, or nobody has told.
    #[default]
    Untold,
    Hit,
    Joined,
    Miss,
    Refused(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Not ended, or nobody saw it end.
    #[default]
    Open,
    Succeeded,
    Failed {
        kind: Option<FailureKind>,
        message: String,
    },
    Cancelled,
    Skipped(String),
}

/// All turns of a step, the first life first. Lives in which it did not come to its turn are left out.
pub(super) fn read(mut tail: Tail, step: &str) -> Result<Vec<Turn>, TailError> {
    let mut turns = Vec::new();
    let mut turn = None;
    loop {
        let lines = tail.read()?;
        if lines.is_empty() {
            turns.extend(turn);
            return Ok(turns);
        }
        for line in &lines {
            if matches!(line.kind, Some(EventType::JobStarted | EventType::JobResumed)) {
                turns.extend(turn.take());
            } else if line.step.as_deref() == Some(step) {
                turn.get_or_insert_with(Turn::default).take_in(line);
            } else if let (Some(turn), Some(other)) = (&mut turn, line.step.as_deref())
                && other.strip_prefix(step).is_some_and(|rest| rest.starts_with(['[', '/']))
            {
                turn.has_parts = true;
            }
        }
    }
}

/// The fields that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    key: Option<Key>,
    reason: String,
    kind: Option<FailureKind>,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    data: Data,
}

impl Turn {
    fn take_in(&mut self, line: &JournalLine) {
        let data = serde_json::from_str::<Line>(&line.text).unwrap_or_default().data;
        match line.kind {
            Some(EventType::StepStarted) => self.key = data.key.or(self.key),
            Some(EventType::CacheHit) => self.cache = Cache::Hit,
            Some(EventType::CacheJoined) => self.cache = Cache::Joined,
            Some(EventType::CacheRefused) => self.cache = Cache::Refused(data.reason),
            // A refused entry is missed too; why it was refused is the better answer.
            Some(EventType::CacheMiss) if matches!(self.cache, Cache::Refused(_)) => {}
            Some(EventType::CacheMiss) => self.cache = Cache::Miss,
            Some(EventType::StepSucceeded) => {
                self.key = data.key.or(self.key);
                self.outcome = Outcome::Succeeded;
            }
            Some(EventType::StepFailed | EventType::StepRetrying) => {
                self.outcome = Outcome::Failed { kind: data.kind, message: data.message };
            }
            Some(EventType::StepCancelled) => self.outcome = Outcome::Cancelled,
            Some(EventType::StepSkipped) => self.outcome = Outcome::Skipped(data.reason),
            _ => {}
        }
    }

    /// The key of a result that this turn brought.
    pub(super) fn result(&self) -> Option<Key> {
        self.key.filter(|_| self.outcome == Outcome::Succeeded)
    }
}
