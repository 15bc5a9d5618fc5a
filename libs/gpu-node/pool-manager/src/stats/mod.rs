//! What instances use and do right now: processor, memory, slots, tokens a second.
//!
//! Sampled when somebody looks and never in between: engines are asked by nobody's clock but the viewer's. The
//! daemon and a command without one look through the same [`Sampler`].

mod devices;
mod engine_counters;
pub(crate) mod gpu_memory;
mod rates;
mod reading;
mod sampler;

pub use devices::{DeviceUsage, Devices};
pub use engine_counters::{EngineCounters, ReplicaCounters, Series};
pub use orch_api::{InstanceStats, SlotActivity, SlotState};
pub use sampler::{Sampler, StatsTarget, targets};
