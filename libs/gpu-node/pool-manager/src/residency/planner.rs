//! What has to go so that something else can be loaded. Pure: nothing but its arguments decides.
//!
//! Goals, in this order:
//! 1. A forbidden victim is never touched: pinned, `always` and manual instances, and whoever serves somebody.
//! 2. After the plan the newcomer fits, by the plan's own numbers.
//! 3. No victim too many: none could be left out. The least recently used go first.
//! 4. No thrashing: who was loaded stays for a minimum, and as long as it has requests it goes on serving, all of
//!    them, until somebody else has waited for the starvation bound. From then on it takes no new ones and makes room
//!    when its last one is done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use instance_config::Place;
use orch_core::{ByteCount, InstanceName};
use serde::Serialize;

use super::ledger::Ledger;

/// The settings that rule residency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidencyPolicy {
    /// Who was loaded stays at least so long.
    pub min_residency: Duration,
    /// Whoever waited so long is served next.
    pub starvation: Duration,
}

/// What is to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) instance: InstanceName,
    pub(super) group: Option<String>,
    pub(super) need: BTreeMap<Place, ByteCount>,
    /// The need is a bound: where more is asked than there could be, all there could be will do.
    pub(super) at_most: bool,
    pub(super) urgency: Urgency,
}

/// Who asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Requests that wait; the oldest for so long, and loading takes about that.
    Requests { oldest_wait: Duration, load_time: Duration },
    /// A user who said so: nobody's minimum stay counts, but requests in flight do.
    User,
}

/// Who must not be evicted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protection {
    Pinned,
    Always,
    Manual,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::Pinned => "pinned",
            Protection::Always => "kept up always",
            Protection::Manual => "started and stopped by hand",
        })
    }
}

/// Somebody who is loaded, or on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) instance: InstanceName,
    pub(super) group: Option<String>,
    pub(super) protection: Option<Protection>,
    /// Ready; not on its way in or out.
    pub(super) settled: bool,
    pub(super) in_flight: usize,
    pub(super) waiting: usize,
    /// Since its last request, or since it was ready.
    pub(super) idle_for: Duration,
    /// Since it was ready.
    pub(super) loaded_for: Duration,
    /// It takes no new requests, because somebody starves.
    pub(super) yielding: bool,
}

/// One who has to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Eviction {
    pub(super) instance: InstanceName,
    pub(super) why: Why,
}

/// Why somebody has to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// Only one of a group is loaded at a time.
    Group(String),
    /// Its memory there is needed.
    Memory(Place),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Group(group) => write!(f, "only one of group {group} is loaded at a time"),
            Why::Memory(place) => write!(f, "its memory is needed ({place})"),
        }
    }
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Obstacle {
    /// It serves, or has requests that wait.
    Busy(InstanceName),
    /// It is on its way in or out.
    Moving(InstanceName),
    /// It was loaded just now.
    Fresh(InstanceName),
    /// A member of the same group may not go.
    Group { group: String, holder: InstanceName, protection: Protection },
    /// Even without all who may go there is too little.
    Memory { place: Place, needed: ByteCount, available: ByteCount },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Busy(name) => write!(f, "{name} is busy"),
            Obstacle::Moving(name) => write!(f, "{name} is being loaded or unloaded"),
            Obstacle::Fresh(name) => write!(f, "{name} was loaded just now"),
            Obstacle::Group { group, holder, protection } => {
                write!(f, "group {group} is taken by {holder}, which is {protection}")
            }
            Obstacle::Memory { place, needed, available } => {
                write!(f, "it needs {needed} of {place}, and {available} could be had")
            }
        }
    }
}

/// What is to be done about a want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// These go, then it is loaded.
    Load { evict: Vec<Eviction> },
    /// It starves: these take no new requests, and go when they are done.
    Drain { victims: Vec<Eviction>, obstacles: Vec<Obstacle> },
    /// Nothing yet; look again after so long, or when something changes.
    Wait { obstacles: Vec<Obstacle>, again: Option<Duration> },
    /// Nobody who may go could make room.
    Impossible { obstacle: Obstacle },
}

/// What has to be done so that `want` is loaded next to, or instead of, the residents.
pub(super) fn plan(want: &Want, residents: &[Resident], ledger: &Ledger, policy: &ResidencyPolicy) -> Plan {
    let residents: Vec<&Resident> = residents.iter().filter(|it| it.instance != want.instance).collect();
    if let Some(obstacle) = taken_group(want, &residents) {
        return Plan::Impossible { obstacle };
    }
    let mut candidates: Vec<&Resident> =
        residents.iter().copied().filter(|it| it.protection.is_none()).collect();
    candidates.sort_by(|one, other| order(one).cmp(&order(other)));
    let need = match could_fit(want, &candidates, ledger) {
        Ok(need) => need,
        Err(obstacle) => return Plan::Impossible { obstacle },
    };
    let choice = Choice { want, need: &need, ledger };
    let ready = |it: &&Resident| obstacle_of(it, want, policy).is_none();
    let now: Vec<&Resident> = candidates.iter().copied().filter(ready).collect();
    if let Some(evict) = choice.smallest(&now, &candidates) {
        return Plan::Load { evict };
    }
    let Some(victims) = choice.smallest(&candidates, &candidates) else {
        return Plan::Wait { obstacles: Vec::new(), again: None };
    };
    let is_victim = |it: &&&Resident| victims.iter().any(|victim| victim.instance == it.instance);
    let stays = candidates.iter().filter(is_victim);
    let obstacles: Vec<Obstacle> = stays.filter_map(|it| obstacle_of(it, want, policy)).collect();
    // Who has only just come keeps its minimum: it came because somebody had waited for it.
    let can_drain = obstacles.iter().all(|it| matches!(it, Obstacle::Busy(_)));
    if can_drain && starves(want, policy) {
        return Plan::Drain { victims, obstacles };
    }
    Plan::Wait { obstacles, again: again(want, &candidates, policy) }
}

/// Whoever has nothing to do, the least recently used first; then the busy ones, the longest resident first.
fn order(it: &Resident) -> (bool, std::cmp::Reverse<Duration>, &InstanceName) {
    let busy = it.in_flight > 0 || it.waiting > 0 || !it.settled;
    (busy, std::cmp::Reverse(if busy { it.loaded_for } else { it.idle_for }), &it.instance)
}

fn is_mate(want: &Want, it: &Resident) -> bool {
    want.group.is_some() && it.group == want.group
}

fn taken_group(want: &Want, residents: &[&Resident]) -> Option<Obstacle> {
    residents.iter().filter(|it| is_mate(want, it)).find_map(|it| {
        Some(Obstacle::Group {
            group: want.group.clone()?,
            holder: it.instance.clone(),
            protection: it.protection?,
        })
    })
}

/// What it needs, if it fits once everybody has gone who may go.
fn could_fit(
    want: &Want,
    candidates: &[&Resident],
    ledger: &Ledger,
) -> Result<BTreeMap<Place, ByteCount>, Obstacle> {
    let gone: Vec<&InstanceName> = candidates.iter().map(|it| &it.instance).collect();
    let mut need = want.need.clone();
    for (place, needed) in &mut need {
        let Some(available) = ledger.available_without(place, &gone) else { continue };
        if available < *needed && !want.at_most {
            return Err(Obstacle::Memory { place: place.clone(), needed: *needed, available });
        }
        *needed = available.min(*needed);
    }
    Ok(need)
}

/// What keeps one from going at once.
fn obstacle_of(it: &Resident, want: &Want, policy: &ResidencyPolicy) -> Option<Obstacle> {
    let name = it.instance.clone();
    if !it.settled {
        return Some(Obstacle::Moving(name));
    }
    if it.loaded_for < policy.min_residency && want.urgency != Urgency::User {
        return Some(Obstacle::Fresh(name));
    }
    let busy = it.in_flight > 0 || (it.waiting > 0 && !it.yielding);
    busy.then_some(Obstacle::Busy(name))
}

/// The bound is kept by beginning as much earlier as a load takes; a load longer than half of it is not waited for.
fn patience(policy: &ResidencyPolicy, load_time: Duration) -> Duration {
    policy.starvation.saturating_sub(load_time.min(policy.starvation / 2))
}

fn starves(want: &Want, policy: &ResidencyPolicy) -> bool {
    match want.urgency {
        Urgency::Requests { oldest_wait, load_time } => oldest_wait >= patience(policy, load_time),
        Urgency::User => false,
    }
}

/// When time alone could change the answer.
fn again(want: &Want, candidates: &[&Resident], policy: &ResidencyPolicy) -> Option<Duration> {
    let Urgency::Requests { oldest_wait, load_time } = want.urgency else { return None };
    let starving = patience(policy, load_time).saturating_sub(oldest_wait);
    let settled = candidates.iter().map(|it| policy.min_residency.saturating_sub(it.loaded_for));
    settled.chain([starving]).filter(|left| !left.is_zero()).min()
}

/// The choice of victims for one want.
struct Choice<'a> {
    want: &'a Want,
    need: &'a BTreeMap<Place, ByteCount>,
    ledger: &'a Ledger,
}

impl Choice<'_> {
    /// The first of `from` that make room, less those that were not needed after all; `None` where not even all of
    /// them do. A mate that is not among them keeps its group.
    fn smallest(&self, from: &[&Resident], everybody: &[&Resident]) -> Option<Vec<Eviction>> {
        let is_from = |it: &Resident| from.iter().any(|other| other.instance == it.instance);
        if everybody.iter().any(|it| is_mate(self.want, it) && !is_from(it)) {
            return None;
        }
        let (mates, others): (Vec<&Resident>, Vec<&Resident>) =
            from.iter().copied().partition(|it| is_mate(self.want, it));
        let mut victims: Vec<&InstanceName> = mates.iter().map(|it| &it.instance).collect();
        let mut why: BTreeMap<&InstanceName, Why> = BTreeMap::new();
        for other in others {
            let short = self.ledger.shortages(self.need, &victims);
            if let Some(place) = short.into_iter().find(|place| self.holds(other, place)) {
                why.insert(&other.instance, Why::Memory(place));
                victims.push(&other.instance);
            }
        }
        if !self.ledger.shortages(self.need, &victims).is_empty() {
            return None;
        }
        // The most recently used stay if they can.
        for name in victims.clone().into_iter().rev().filter(|name| why.contains_key(name)) {
            let without: Vec<_> = victims.iter().copied().filter(|victim| *victim != name).collect();
            if self.ledger.shortages(self.need, &without).is_empty() {
                victims = without;
            }
        }
        let group = self.want.group.clone().unwrap_or_default();
        let eviction = |name: &InstanceName| Eviction {
            instance: name.clone(),
            why: why.get(name).cloned().unwrap_or_else(|| Why::Group(group.clone())),
        };
        Some(victims.into_iter().map(eviction).collect())
    }

    fn holds(&self, it: &Resident, place: &Place) -> bool {
        let holding = self.ledger.holdings.get(&it.instance);
        holding.and_then(|holding| holding.get(place)).is_some_and(|held| held.reserved > ByteCount(0))
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
