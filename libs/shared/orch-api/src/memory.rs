//! Memory: who holds how much of it where, and what loading something would take.

use orch_core::ByteCount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The memory of one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryReport {
    /// The host and every device that engines list.
    pub places: Vec<PlaceReport>,
    /// About the instance that was asked for.
    pub plan: Option<PlanReport>,
}

/// One place where engines take memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlaceReport {
    /// `host`, or the name of a device.
    pub place: String,
    /// A device's product name.
    pub name: Option<String>,
    /// What engines may take together: all there is, or the budget of the settings.
    #[schema(value_type = u64)]
    pub usable_bytes: ByteCount,
    /// What is free, as the system or the driver tells.
    #[schema(value_type = Option<u64>)]
    pub free_bytes: Option<ByteCount>,
    /// What instances hold together.
    #[schema(value_type = u64)]
    pub reserved_bytes: ByteCount,
    /// What a newcomer could get without anybody going.
    #[schema(value_type = u64)]
    pub available_bytes: ByteCount,
    /// Who holds something here.
    pub holders: Vec<HolderReport>,
}

/// What one instance holds in a place, all its replicas together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HolderReport {
    /// The instance.
    pub instance: String,
    /// What is kept for it.
    #[schema(value_type = u64)]
    pub reserved_bytes: ByteCount,
    /// What of it is really taken by now.
    #[schema(value_type = u64)]
    pub taken_bytes: ByteCount,
    /// `estimated` (before and while it loads) or `measured`.
    pub basis: String,
    /// Why it is never evicted; absent = it may be.
    pub protection: Option<String>,
    /// It serves, has requests that wait, or is on its way in or out.
    pub busy: bool,
    /// Since its last request, or since it was ready.
    pub idle_seconds: u64,
}

/// What loading one instance would take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanReport {
    /// The instance.
    pub instance: String,
    /// `loaded`, `fits`, `evicts`, `waits` or `impossible`.
    pub verdict: String,
    /// By place.
    pub needs: Vec<NeedReport>,
    /// Who would go.
    pub evicts: Vec<EvictionReport>,
    /// What stands in the way.
    pub obstacles: Vec<String>,
    /// The needs are bounds only: arguments place tensors one by one.
    pub at_most: bool,
}

/// What is needed in one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NeedReport {
    /// `host`, or the name of a device.
    pub place: String,
    /// The model's files.
    #[schema(value_type = u64)]
    pub weights_bytes: ByteCount,
    /// Keys and values of the whole context.
    #[schema(value_type = u64)]
    pub cache_bytes: ByteCount,
    /// Buffers, process and driver.
    #[schema(value_type = u64)]
    pub working_bytes: ByteCount,
    /// All of these.
    #[schema(value_type = u64)]
    pub total_bytes: ByteCount,
    /// What it could get now; absent where nothing is known of the place.
    #[schema(value_type = Option<u64>)]
    pub available_bytes: Option<ByteCount>,
    /// The same once those who would go are gone.
    #[schema(value_type = Option<u64>)]
    pub available_after_bytes: Option<ByteCount>,
}

/// Who would go, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvictionReport {
    /// The instance.
    pub instance: String,
    /// In words.
    pub reason: String,
}
