//! A line of the journal.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a line says. The words are fixed: people grep for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventType {
    #[serde(rename = "job.started")]
    JobStarted,
    #[serde(rename = "job.resumed")]
    JobResumed,
    #[serde(rename = "job.waiting")]
    JobWaiting,
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.failed")]
    JobFailed,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    #[serde(rename = "step.started")]
    StepStarted,
    #[serde(rename = "step.succeeded")]
    StepSucceeded,
    #[serde(rename = "step.failed")]
    StepFailed,
    #[serde(rename = "step.retrying")]
    StepRetrying,
    #[serde(rename = "step.cancelled")]
    StepCancelled,
    #[serde(rename = "step.skipped")]
    StepSkipped,
    #[serde(rename = "llm.request")]
    LlmRequest,
    #[serde(rename = "llm.response")]
    LlmResponse,
    #[serde(rename = "file.written")]
    FileWritten,
    #[serde(rename = "file.refused")]
    FileRefused,
    #[serde(rename = "cache.hit")]
    CacheHit,
    #[serde(rename = "cache.miss")]
    CacheMiss,
    #[serde(rename = "cache.stored")]
    CacheStored,
    #[serde(rename = "cache.joined")]
    CacheJoined,
    #[serde(rename = "cache.refused")]
    CacheRefused,
    #[serde(rename = "gate.waiting")]
    GateWaiting,
    #[serde(rename = "gate.decided")]
    GateDecided,
    #[serde(rename = "map.expanded")]
    MapExpanded,
    #[serde(rename = "loop.iterated")]
    LoopIterated,
    #[serde(rename = "budget.exceeded")]
    BudgetExceeded,
    #[serde(rename = "journal.repaired")]
    JournalRepaired,
    #[serde(rename = "lease.lost")]
    LeaseLost,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    #[default]
    Info,
    Warn,
    Error,
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
