//! What instances use and do right now: processor, memory, slots, tokens a second.
//!
//! Sampled when somebody looks and never in between: engines are asked by nobody's clock but the viewer's. The
//! daemon and a command without one look through the same [`Sampler`].

mod devices;
mod engine_counters;
mod gpu_memory;
mod rates;
mod reading;
mod sampler;

use orch_core::{ByteCount, ReplicaId, Status};
use serde::{Deserialize, Serialize};

use crate::view::Slots;

pub use devices::{DeviceUsage, Devices};
pub use engine_counters::{EngineCounters, ReplicaCounters, Series};
pub use sampler::{Sampler, StatsTarget, targets};

/// One replica's use of its machine and its work; the names of the fields are what scripts read. What is not known
/// is absent, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStats {
    pub name: String,
    pub replica_id: ReplicaId,
    pub pid: Option<u32>,
    pub status: Status,
    /// 100 = one core fully used.
    pub cpu_percent: Option<f64>,
    pub rss_bytes: Option<ByteCount>,
    /// Memory on graphics devices, where the driver tells it by process.
    pub vram_bytes: Option<ByteCount>,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotActivity {
    pub id: u32,
    pub state: SlotState,
    /// Tokens generated for the request at work.
    pub generated: u64,
    /// Tokens in the slot's context.
    pub context_used: u64,
    pub context_size: u64,
    pub tokens_per_second: Option<f64>,
}

/// A slot's place in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    Idle,
    /// Reads the prompt.
    Prompt,
    /// Generates.
    Writing,
}

impl SlotState {
    pub const fn label(self) -> &'static str {
        match self {
            SlotState::Idle => "idle",
            SlotState::Prompt => "prompt",
            SlotState::Writing => "writing",
        }
    }
}
