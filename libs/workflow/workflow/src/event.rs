//! A line of the journal.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

macro_rules! event_types {
    ($($variant:ident, $word:literal, $meaning:literal;)+) => {
        /// What a line says. The words are fixed: people grep for them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $(#[doc = $meaning] #[serde(rename = $word)] $variant,)+
        }

        impl EventType {
            /// All types, in the order in which they are documented.
            pub const ALL: &'static [EventType] = &[$(EventType::$variant,)+];

            /// The word in journals.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The type of a word, if it is one of ours.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }

            /// What such a line says, as a short phrase.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

event_types! {
    JobStarted, "job.started", "the job begins";
    JobResumed, "job.resumed", "the job goes on in another process";
    JobWaiting, "job.waiting", "only gates are left; nobody runs the job until it is resumed";
    JobSucceeded, "job.succeeded", "every step has ended well";
    JobFailed, "job.failed", "a step has failed, or the job itself";
    JobCancelled, "job.cancelled", "somebody asked the job to end";
    StepStarted, "step.started", "an attempt of a step begins";
    StepSucceeded, "step.succeeded", "the step's output is in the store";
    StepFailed, "step.failed", "the step has failed for good";
    StepRetrying, "step.retrying", "an attempt has failed and another one follows";
    StepCancelled, "step.cancelled", "the step was ended";
    StepSkipped, "step.skipped", "the step was not run";
    LlmRequest, "llm.request", "a model is asked";
    LlmResponse, "llm.response", "a model has answered, or failed to";
    FileWritten, "file.written", "a step's file is in place";
    FileRefused, "file.refused", "a step's file was not written";
    CacheHit, "cache.hit", "the output comes from the store";
    CacheMiss, "cache.miss", "the store has no such output";
    CacheStored, "cache.stored", "the output is in the store for others";
    CacheJoined, "cache.joined", "the output comes from an equal request in flight";
    CacheRefused, "cache.refused", "an entry of the store is not what it says it is";
    GateWaiting, "gate.waiting", "somebody has to decide";
    GateDecided, "gate.decided", "somebody has decided";
    MapExpanded, "map.expanded", "a step has become one for each element";
    LoopIterated, "loop.iterated", "a loop's body begins again";
    BudgetExceeded, "budget.exceeded", "the job's tokens are used up";
    JournalRepaired, "journal.repaired", "a torn end of the journal was cut off";
    LeaseLost, "lease.lost", "another worker has the step now";
}

impl EventType {
    /// Whether it ends a step. Every step has exactly one of these in each run of the job.
    pub const fn ends_step(self) -> bool {
        matches!(self, Self::StepSucceeded | Self::StepFailed | Self::StepCancelled | Self::StepSkipped)
    }

    /// Whether it ends the job, until somebody resumes it.
    pub const fn ends_job(self) -> bool {
        matches!(self, Self::JobSucceeded | Self::JobFailed | Self::JobCancelled | Self::JobWaiting)
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word in journals.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// One event as it stands in the journal, without its checksum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// UTC with microseconds and `Z`.
    pub ts: String,
    /// From 1, without gaps.
    pub seq: u64,
    pub level: Level,
    pub job_id: String,
    #[serde(rename = "type")]
    pub kind: EventType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}
