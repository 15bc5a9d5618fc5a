//! What people and scripts see of memory: who holds what where, and what loading something would take.

use instance_config::{MemoryEstimate, MemoryShare, Place};
use orch_core::{ByteCount, InstanceName};
use serde::{Deserialize, Serialize};

use super::ledger::{Basis, Ledger};
use super::planner::{Plan, ResidencyPolicy, Resident, Want, plan};

/// The whole of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryReport {
    pub places: Vec<PlaceReport>,
    /// About the instance that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<PlanReport>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaceReport {
    /// `host`, or the name of a device.
    pub place: String,
    /// A device's product name.
    pub name: Option<String>,
    /// What engines may take together.
    pub usable_bytes: ByteCount,
    /// As the system or the driver tells.
    pub free_bytes: Option<ByteCount>,
    pub reserved_bytes: ByteCount,
    /// What a newcomer could get without anybody going.
    pub available_bytes: ByteCount,
    pub holders: Vec<HolderReport>,
}

/// What one instance holds in a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HolderReport {
    pub instance: String,
    pub reserved_bytes: ByteCount,
    pub taken_bytes: ByteCount,
    /// `estimated` or `measured`.
    pub basis: String,
    /// Why it is never evicted; `None` = it may be.
    pub protection: Option<String>,
    pub busy: bool,
    pub idle_seconds: u64,
}

/// What loading one instance would take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    pub instance: String,
    /// `loaded`, `fits`, `evicts`, `waits` or `impossible`.
    pub verdict: String,
    pub needs: Vec<NeedReport>,
    pub evicts: Vec<EvictionReport>,
    /// What stands in the way.
    pub obstacles: Vec<String>,
    /// The need is a bound only: arguments place tensors one by one.
    pub at_most: bool,
}

/// What is needed in one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeedReport {
    pub place: String,
    #[serde(flatten)]
    pub share: MemoryShare,
    pub total_bytes: ByteCount,
    /// Before and after the evictions; `None` where nothing is known of the place.
    pub available_bytes: Option<ByteCount>,
    pub available_after_bytes: Option<ByteCount>,
}

/// Who would go, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvictionReport {
    pub instance: String,
    pub reason: String,
}

/// The places of a ledger with their holders.
pub(super) fn places(ledger: &Ledger, residents: &[Resident]) -> Vec<PlaceReport> {
    let of_place = |(place, capacity): (&Place, &super::ledger::Capacity)| PlaceReport {
        place: place.to_string(),
        name: capacity.name.clone(),
        usable_bytes: capacity.usable,
        free_bytes: capacity.free,
        reserved_bytes: ledger.reserved(place),
        available_bytes: ledger.available_without(place, &[]).unwrap_or_default(),
        holders: holders(place, ledger, residents),
    };
    ledger.places.iter().map(of_place).collect()
}

fn holders(place: &Place, ledger: &Ledger, residents: &[Resident]) -> Vec<HolderReport> {
    let holder = |(name, holding): (&InstanceName, &super::ledger::Holding)| {
        let held = holding.get(place)?;
        let resident = residents.iter().find(|it| it.instance == *name);
        Some(HolderReport {
            instance: name.to_string(),
            reserved_bytes: held.reserved,
            taken_bytes: held.taken,
            basis: match held.basis {
                Basis::Estimated => "estimated".to_owned(),
                Basis::Measured => "measured".to_owned(),
            },
            protection: resident.and_then(|it| it.protection).map(|it| it.to_string()),
            busy: resident.is_none_or(|it| it.in_flight > 0 || it.waiting > 0 || !it.settled),
            idle_seconds: resident.map_or(0, |it| it.idle_for.as_secs()),
        })
    };
    ledger.holdings.iter().filter_map(holder).collect()
}

/// What loading `want` would take now.
pub(super) fn plan_report(
    want: &Want,
    estimate: &MemoryEstimate,
    residents: &[Resident],
    ledger: &Ledger,
    policy: &ResidencyPolicy,
) -> PlanReport {
    let loaded = residents.iter().any(|it| it.instance == want.instance);
    let mut book = ledger.clone();
    book.holdings.remove(&want.instance);
    let (verdict, evicted, obstacles) = match plan(want, residents, &book, policy) {
        _ if loaded => ("loaded", Vec::new(), Vec::new()),
        Plan::Load { evict } if evict.is_empty() => ("fits", evict, Vec::new()),
        Plan::Load { evict } => ("evicts", evict, Vec::new()),
        Plan::Drain { victims, obstacles } => ("waits", victims, obstacles),
        Plan::Wait { obstacles, .. } => ("waits", Vec::new(), obstacles),
        Plan::Impossible { obstacle } => ("impossible", Vec::new(), vec![obstacle]),
    };
    let gone: Vec<&InstanceName> = evicted.iter().map(|it| &it.instance).collect();
    let need = |(place, share): (&Place, &MemoryShare)| NeedReport {
        place: place.to_string(),
        share: *share,
        total_bytes: share.total(),
        available_bytes: book.available_without(place, &[]),
        available_after_bytes: book.available_without(place, &gone),
    };
    let eviction = |it: &super::planner::Eviction| EvictionReport {
        instance: it.instance.to_string(),
        reason: it.why.to_string(),
    };
    PlanReport {
        instance: want.instance.to_string(),
        verdict: verdict.to_owned(),
        needs: estimate.places.iter().map(need).collect(),
        evicts: evicted.iter().map(eviction).collect(),
        obstacles: obstacles.iter().map(ToString::to_string).collect(),
        at_most: want.at_most,
    }
}
