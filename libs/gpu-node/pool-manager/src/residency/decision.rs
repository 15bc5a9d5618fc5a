//! All wants and all residents at one moment, and what is to be done about them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use instance_config::Place;
use orch_core::InstanceName;

use super::ledger::{Basis, Held, Ledger};
use super::planner::{Eviction, Obstacle, Plan, ResidencyPolicy, Resident, Urgency, Want, plan};

/// What a look at the node showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// What requests wait for, and what nobody can load: as soon as it could be, it may be asked for again.
    pub(super) wants: Vec<Want>,
    pub(super) residents: Vec<Resident>,
    /// Residents that are unloaded after so long without a request.
    pub(super) idle_ttl: BTreeMap<InstanceName, Duration>,
    pub(super) ledger: Ledger,
}

/// What is to be done about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Unload these, wait until their memory is free, and load it.
    Swap { load: InstanceName, evict: Vec<Eviction> },
    /// Nobody asked for it for its time to live.
    UnloadIdle { instance: InstanceName, idle_for: Duration },
}

/// The answer to a picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    /// Who takes no new requests from now on, and for whom; everybody else does.
    pub(super) yielding: BTreeMap<InstanceName, InstanceName>,
    /// What nobody can load now, and why.
    pub(super) refused: BTreeMap<InstanceName, Obstacle>,
    /// Look again after so long, even if nothing happens.
    pub(super) again: Option<Duration>,
}

/// Decides for every want, whoever waited longest first.
pub(super) fn decide(picture: &Picture, policy: &ResidencyPolicy) -> Decision {
    let mut decision = Decision::default();
    let mut residents = picture.residents.clone();
    let mut ledger = picture.ledger.clone();
    let mut wants: Vec<&Want> = picture.wants.iter().collect();
    wants.sort_by_key(|want| std::cmp::Reverse(waited(want)));
    for want in wants {
        match plan(want, &residents, &ledger, policy) {
            Plan::Load { evict } => {
                let gone: BTreeSet<&InstanceName> = evict.iter().map(|it| &it.instance).collect();
                residents.retain(|it| !gone.contains(&it.instance));
                residents.push(on_its_way(want));
                book(&mut ledger, want, &gone);
                decision.actions.push(Action::Swap { load: want.instance.clone(), evict });
            }
            Plan::Drain { victims, .. } => {
                for victim in victims {
                    decision.yielding.entry(victim.instance).or_insert_with(|| want.instance.clone());
                }
            }
            Plan::Wait { again, .. } => decision.sooner(again),
            Plan::Impossible { obstacle } => {
                decision.refused.insert(want.instance.clone(), obstacle);
            }
        }
    }
    unload_idle(picture, &residents, &mut decision);
    decision
}

fn waited(want: &Want) -> Duration {
    match want.urgency {
        Urgency::Requests { oldest_wait, .. } => oldest_wait,
        Urgency::User => Duration::MAX,
    }
}

/// From here on a want counts as a resident that nobody can evict.
fn on_its_way(want: &Want) -> Resident {
    Resident {
        instance: want.instance.clone(),
        group: want.group.clone(),
        protection: None,
        settled: false,
        in_flight: 0,
        waiting: 0,
        idle_for: Duration::ZERO,
        loaded_for: Duration::ZERO,
        yielding: false,
    }
}

/// What goes is credited with what it had taken, what comes is charged.
fn book(ledger: &mut Ledger, want: &Want, gone: &BTreeSet<&InstanceName>) {
    for name in gone {
        let Some(holding) = ledger.holdings.remove(*name) else { continue };
        for (place, held) in holding {
            let free = ledger.places.get_mut(&place).and_then(|capacity| capacity.free.as_mut());
            if let Some(free) = free {
                free.0 = free.0.saturating_add(held.taken.0);
            }
        }
    }
    let charged = |(place, bytes): (&Place, &orch_core::ByteCount)| {
        let held = Held { reserved: *bytes, taken: orch_core::ByteCount(0), basis: Basis::Estimated };
        (place.clone(), held)
    };
    ledger.holdings.insert(want.instance.clone(), want.need.iter().map(charged).collect());
}

fn unload_idle(picture: &Picture, residents: &[Resident], decision: &mut Decision) {
    for it in residents.iter().filter(|it| it.settled && it.in_flight == 0 && it.waiting == 0) {
        let Some(&ttl) = picture.idle_ttl.get(&it.instance).filter(|ttl| !ttl.is_zero()) else { continue };
        if it.idle_for >= ttl {
            let (instance, idle_for) = (it.instance.clone(), it.idle_for);
            decision.actions.push(Action::UnloadIdle { instance, idle_for });
        } else {
            decision.sooner(Some(ttl.saturating_sub(it.idle_for)));
        }
    }
}

impl Decision {
    fn sooner(&mut self, again: Option<Duration>) {
        self.again = [self.again, again].into_iter().flatten().min();
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
