//! What instances use and do now.

use orch_core::{ByteCount, ReplicaId, Status};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::instances::Slots;
use crate::shape::{replica_schema, status_schema};

/// One replica's use of its machine and its work; the names of the fields are what scripts read. What is not known
/// is absent, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStats {
    /// The instance.
    pub name: String,
    /// Which of its engines.
    #[schema(schema_with = replica_schema)]
    pub replica_id: ReplicaId,
    /// The engine's process.
    pub pid: Option<u32>,
    /// What that process does.
    #[schema(schema_with = status_schema)]
    pub status: Status,
    /// 100 = one core fully used.
    pub cpu_percent: Option<f64>,
    /// Memory of the process.
    #[schema(value_type = Option<u64>)]
    pub rss_bytes: Option<ByteCount>,
    /// Memory on graphics devices, where the driver tells it by process.
    #[schema(value_type = Option<u64>)]
    pub vram_bytes: Option<ByteCount>,
    /// Free and busy slots.
    pub slots: Option<Slots>,
    /// Requests that wait inside the engine for a slot.
    pub waiting: Option<u32>,
    /// Generated tokens, all slots together.
    pub tokens_per_second: Option<f64>,
    /// Prompt tokens, those from the cache not counted.
    pub prompt_tokens_per_second: Option<f64>,
    /// What each slot does; empty where the engine does not tell, or may sleep and would be woken by the question.
    pub slot_activity: Vec<SlotActivity>,
}

/// What one slot of an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SlotActivity {
    /// The engine's number for it.
    pub id: u32,
    /// Where its request is.
    pub state: SlotState,
    /// Tokens generated for the request at work.
    pub generated: u64,
    /// Tokens in the slot's context.
    pub context_used: u64,
    /// Tokens that fit it.
    pub context_size: u64,
    /// Of the request at work.
    pub tokens_per_second: Option<f64>,
}

/// A slot's place in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    /// Free.
    Idle,
    /// Reads the prompt.
    Prompt,
    /// Generates.
    Writing,
}

impl SlotState {
    /// The word on the wire.
    pub const fn label(self) -> &'static str {
        match self {
            SlotState::Idle => "idle",
            SlotState::Prompt => "prompt",
            SlotState::Writing => "writing",
        }
    }
}
