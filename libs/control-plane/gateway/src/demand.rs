//! What requests want of the instances: for whoever loads and unloads engines.

use orch_core::InstanceName;
use tokio::time::Instant;

use crate::live::{Snapshot, TableHandle};
use crate::route::{Route, find_route};
use crate::table::Loadable;

/// What requests want of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub instance: InstanceName,
    /// Requests that wait for it. Those of a name that several instances share are counted for the ones that serve,
    /// else for the ones that are starting, else for the first that would be loaded: one load, not many.
    pub waiting: usize,
    /// Since when the one of them waits that came first.
    pub oldest: Option<Instant>,
    /// Requests that its replicas are working on.
    pub in_flight: usize,
    /// When the last request on one of its replicas ended; `None` = there was none since it is loaded.
    pub last_used: Option<Instant>,
}

impl TableHandle {
    /// What requests want now, of every instance of the table.
    pub fn demand(&self) -> Vec<Demand> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let mut demand = unwanted(&snapshot);
        for waiters in self.admission().waiters() {
            let Ok(route) = find_route(&snapshot, waiters.asked.as_deref()) else { continue };
            for index in wanted(&snapshot, &route) {
                let wanted = &mut demand[index];
                wanted.waiting += waiters.count;
                wanted.oldest = [wanted.oldest, waiters.oldest].into_iter().flatten().min();
            }
        }
        demand
    }

    /// Completes when a request began or ceased to wait, a replica that others wait for became idle, or another table
    /// was published, since this was last awaited. For one listener.
    pub async fn demand_changed(&self) {
        self.admission().demand_changed().await;
    }
}

/// What is in use, with nobody who waits.
fn unwanted(snapshot: &Snapshot) -> Vec<Demand> {
    let demand = snapshot.instances().map(|(instance, targets)| Demand {
        instance: instance.name.clone(),
        waiting: 0,
        oldest: None,
        in_flight: targets.iter().map(|target| target.live.in_flight()).sum(),
        last_used: targets.iter().filter_map(|target| target.live.last_used()).max(),
    });
    demand.collect()
}

/// Which instances of a route those have in mind who wait for it.
fn wanted(snapshot: &Snapshot, route: &Route<'_, '_>) -> Vec<usize> {
    let loadable = |index: usize| snapshot.table.instances[index].loadable;
    let those = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
        route.indices().iter().copied().filter(|&index| wanted(index)).collect()
    };
    let serving = those(&|index| snapshot.targets[index].iter().any(|target| target.usable()));
    if !serving.is_empty() {
        return serving;
    }
    let starting = those(&|index| loadable(index) == Loadable::Starting);
    if !starting.is_empty() {
        return starting;
    }
    let mut on_demand = those(&|index| loadable(index) == Loadable::OnDemand);
    on_demand.truncate(1);
    on_demand
}
