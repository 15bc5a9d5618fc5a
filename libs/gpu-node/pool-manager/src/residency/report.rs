//! The ledger and a plan as people and scripts see them.

use instance_config::{MemoryEstimate, MemoryShare, Place};
use orch_api::{EvictionReport, HolderReport, NeedReport, PlaceReport, PlanReport};
use orch_core::InstanceName;

use super::ledger::{Basis, Ledger};
use super::planner::{Plan, ResidencyPolicy, Resident, Want, plan};

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
        weights_bytes: share.weights,
        cache_bytes: share.cache,
        working_bytes: share.working,
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
