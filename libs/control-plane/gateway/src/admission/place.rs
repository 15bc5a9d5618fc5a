//! Where a request could go now: the one place where admission asks the choice of replica.

use std::sync::Arc;
use std::time::Duration;

use llm_adapters::Problem;

use super::service_time::expected_wait;
use super::{Need, Wish};
use crate::choose::Found;
use crate::live::{Snapshot, Target};
use crate::route::{Route, find_route};

/// What a request finds.
pub(super) enum Place {
    Free(Arc<Target>),
    /// Nothing now, but there will be something.
    Later,
}

/// Where a request could go now, or why it never will. Nothing comes of it.
pub(super) fn look(snapshot: &Snapshot, wish: &Wish<'_>) -> Result<Place, Problem> {
    let route = find_route(snapshot, wish.facts.model.as_deref())?;
    let found = route.look(wish.facts, wish.tried, wish.need == Need::Slot);
    place(&route, wish, found)
}

/// Chooses where a request goes now; the choice is written down.
pub(super) fn choose(route: &Route<'_, '_>, wish: &Wish<'_>) -> Result<Place, Problem> {
    place(route, wish, route.find(wish.facts, wish.tried, wish.need == Need::Slot))
}

fn place(route: &Route<'_, '_>, wish: &Wish<'_>, found: Found<'_>) -> Result<Place, Problem> {
    match found {
        Found::Target(target) => Ok(Place::Free(Arc::clone(target))),
        Found::Busy => Ok(Place::Later),
        Found::Unready | Found::Exhausted if wish.need != Need::Now && is_coming(route, wish) => {
            Ok(Place::Later)
        }
        Found::Unready | Found::Exhausted => Err(route.unavailable()),
        Found::Refused(problem) => Err(problem),
    }
}

/// Whether a replica is on its way that this request has not been at yet.
fn is_coming(route: &Route<'_, '_>, wish: &Wish<'_>) -> bool {
    let targets = route.targets();
    let is_open = |target: &Arc<Target>| {
        let key = &target.replica.key;
        !target.usable() && route.node.is_none_or(|node| key.node_id == node) && !wish.tried.contains(key)
    };
    // An instance that is not loaded lists no replica, and its node is known only when it does.
    let possible = if targets.is_empty() {
        wish.tried.is_empty() && route.is_node_known()
    } else {
        targets.into_iter().any(is_open)
    };
    possible && route.is_loadable()
}

/// When the one that `ahead` go before can start, by what is measured of the replicas that serve this route.
pub(super) fn forecast(route: &Route<'_, '_>, ahead: usize) -> Option<Duration> {
    let targets = route.targets();
    let serving = targets.iter().filter(|target| target.usable());
    expected_wait(ahead, serving.map(|it| (it.replica.slots_total, it.live.service_time.mean())))
}
