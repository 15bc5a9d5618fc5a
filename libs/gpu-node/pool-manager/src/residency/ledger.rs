//! Who holds how much memory where: what is there, what is reserved, and what is left.

use std::collections::BTreeMap;

use instance_config::{MemoryEstimate, Place};
use orch_core::{ByteCount, InstanceName};
use serde::Serialize;

/// Left free in each place where the system or the driver tells what is free: others live there, too.
const MARGIN: ByteCount = ByteCount::from_mib(256);

/// What a place has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// The product name of a device; `None` for the host.
    pub(super) name: Option<String>,
    /// What engines may take together: all of it, or the budget of the settings where that is less.
    pub(super) usable: ByteCount,
    /// What is free now, as the system or the driver tells; `None` where nobody does.
    pub(super) free: Option<ByteCount>,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Basis {
    /// By the size rule, before or while it loads.
    Estimated,
    /// As the system or the driver told of the running engine.
    Measured,
}

/// What one instance holds in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) reserved: ByteCount,
    /// What of it is really taken by now, and missing from what is free.
    pub(super) taken: ByteCount,
    pub(super) basis: Basis,
}

/// All that one instance holds.
pub(super) type Holding = BTreeMap<Place, Held>;

/// The book of one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) places: BTreeMap<Place, Capacity>,
    pub(super) holdings: BTreeMap<InstanceName, Holding>,
}

impl Ledger {
    /// What is reserved in a place by everybody.
    pub(super) fn reserved(&self, place: &Place) -> ByteCount {
        self.sum(place, &[], |held| held.reserved)
    }

    /// What a newcomer may take in a place if these were gone. `None` where nothing is known of the place: what is
    /// not known refuses nobody.
    pub(super) fn available_without(&self, place: &Place, gone: &[&InstanceName]) -> Option<ByteCount> {
        let capacity = self.places.get(place)?;
        let by_book = capacity.usable.0.saturating_sub(self.sum(place, gone, |held| held.reserved).0);
        let Some(free) = capacity.free else { return Some(ByteCount(by_book)) };
        let coming_back = self.holdings.iter().filter(|(name, _)| gone.contains(name));
        let coming_back = coming_back.filter_map(|(_, holding)| holding.get(place));
        let free = coming_back.fold(free.0, |free, held| free.saturating_add(held.taken.0));
        let still_to_come =
            self.sum(place, gone, |held| ByteCount(held.reserved.0.saturating_sub(held.taken.0)));
        let by_reading = free.saturating_sub(still_to_come.0).saturating_sub(MARGIN.0);
        Some(ByteCount(by_book.min(by_reading)))
    }

    fn sum(&self, place: &Place, gone: &[&InstanceName], part: impl Fn(&Held) -> ByteCount) -> ByteCount {
        let staying = self.holdings.iter().filter(|(name, _)| !gone.contains(name));
        let held = staying.filter_map(|(_, holding)| holding.get(place));
        ByteCount(held.fold(0, |sum, held| sum.saturating_add(part(held).0)))
    }

    /// The places in which a newcomer finds less than it needs, if these were gone.
    pub(super) fn shortages(&self, need: &BTreeMap<Place, ByteCount>, gone: &[&InstanceName]) -> Vec<Place> {
        let is_short = |(place, bytes): &(&Place, &ByteCount)| {
            self.available_without(place, gone).is_some_and(|available| available < **bytes)
        };
        need.iter().filter(is_short).map(|(place, _)| place.clone()).collect()
    }
}

/// What an engine that is not there yet, or still loads, is booked with.
pub(super) fn expected(estimate: &MemoryEstimate, taken: &BTreeMap<Place, ByteCount>) -> Holding {
    let held = |(place, share): (&Place, &instance_config::MemoryShare)| {
        let taken = taken.get(place).copied().unwrap_or_default();
        let reserved = share.total().max(taken);
        (place.clone(), Held { reserved, taken, basis: Basis::Estimated })
    };
    estimate.places.iter().map(held).collect()
}

/// What a running engine is booked with: what was measured, where something was. Of the host's memory it is never less
/// than weights and cache: the system brings the pages of a file only when they are asked for.
pub(super) fn measured(estimate: &MemoryEstimate, measured: &BTreeMap<Place, ByteCount>) -> Holding {
    let mut holding = expected(estimate, measured);
    for (place, taken) in measured {
        let certain = match place {
            Place::Host if !estimate.at_most => estimate.places.get(place).map(|share| share.kept()),
            _ => None,
        };
        let reserved = (*taken).max(certain.unwrap_or_default());
        holding.insert(place.clone(), Held { reserved, taken: *taken, basis: Basis::Measured });
    }
    holding
}

#[cfg(test)]
mod tests {
    use instance_config::MemoryShare;

    use super::*;

    fn mib(mib: u64) -> ByteCount {
        ByteCount::from_mib(mib)
    }

    fn card() -> Place {
        Place::Device("CUDA0".to_owned())
    }

    fn ledger(usable: u64, free: Option<u64>) -> Ledger {
        let capacity = Capacity { name: None, usable: mib(usable), free: free.map(mib) };
        Ledger { places: BTreeMap::from([(card(), capacity)]), holdings: BTreeMap::new() }
    }

    fn name(text: &str) -> InstanceName {
        InstanceName::new(text).unwrap()
    }

    fn held(reserved: u64, taken: u64) -> Holding {
        BTreeMap::from([(
            card(),
            Held { reserved: mib(reserved), taken: mib(taken), basis: Basis::Estimated },
        )])
    }

    #[test]
    fn what_is_reserved_and_not_yet_taken_is_not_free_although_the_driver_says_so() {
        let mut ledger = ledger(8000, Some(7000));
        ledger.holdings.insert(name("loading"), held(4000, 1000));
        let left = ledger.available_without(&card(), &[]).unwrap();
        assert_eq!(left, mib(7000 - 3000 - 256));
    }

    #[test]
    fn strangers_on_the_device_count_by_what_is_free() {
        let ledger = ledger(8000, Some(1000));
        assert_eq!(ledger.available_without(&card(), &[]), Some(mib(744)));
    }

    #[test]
    fn who_goes_gives_back_what_it_has_taken() {
        let mut ledger = ledger(8000, Some(1000));
        ledger.holdings.insert(name("old"), held(5000, 5000));
        assert_eq!(ledger.available_without(&card(), &[&name("old")]), Some(mib(5744)));
        let need = BTreeMap::from([(card(), mib(5000))]);
        assert_eq!(ledger.shortages(&need, &[]), [card()]);
        assert_eq!(ledger.shortages(&need, &[&name("old")]), []);
    }

    #[test]
    fn a_place_of_which_nothing_is_known_refuses_nobody() {
        let need = BTreeMap::from([(Place::Device("Vulkan3".to_owned()), mib(1 << 20))]);
        assert_eq!(ledger(1, None).shortages(&need, &[]), []);
    }

    #[test]
    fn measuring_replaces_the_estimate_but_on_the_host_never_below_the_files() {
        let share = MemoryShare { weights: mib(3000), cache: mib(500), working: mib(900) };
        let estimate = MemoryEstimate {
            places: BTreeMap::from([(card(), share), (Place::Host, share)]),
            at_most: false,
        };
        let told = BTreeMap::from([(card(), mib(3600)), (Place::Host, mib(200))]);
        let holding = measured(&estimate, &told);
        assert_eq!((holding[&card()].reserved, holding[&card()].basis), (mib(3600), Basis::Measured));
        assert_eq!((holding[&Place::Host].reserved, holding[&Place::Host].taken), (mib(3500), mib(200)));
        let untold = measured(&estimate, &BTreeMap::new());
        assert_eq!(untold[&card()].reserved, mib(4400), "what nobody measures stays as estimated");
    }
}
