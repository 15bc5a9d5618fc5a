//! What others may know of the queues.

use std::time::Duration;

use tokio::time::Instant;

use super::place::{Place, forecast, look};
use super::queue::Ticket;
use super::{Admission, Need, RouteName, RouteQueue, Wish};
use crate::facts::{Class, Facts};
use crate::live::Snapshot;
use crate::route::find_route;

/// The queue of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// The name that was asked for; `None` = the only instance there is.
    pub route: Option<String>,
    pub interactive: usize,
    pub batch: usize,
    /// How long the one has waited that came first.
    pub oldest: Duration,
}

/// What a request that came now would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// How many would be served before it.
    pub position: usize,
    /// When it could begin; `None` = not measured yet.
    pub starts_in: Option<Duration>,
}

/// Those who wait for one route.
pub(crate) struct Waiters {
    pub(crate) asked: Option<String>,
    pub(crate) count: usize,
    pub(crate) oldest: Option<Instant>,
}

impl Admission {
    /// Every queue in which somebody waits.
    pub(crate) fn queues(&self, now: Instant) -> Vec<QueueView> {
        let state = self.lock();
        let slots = state.routes.iter().filter(|route| route.name.need == Need::Slot);
        let mut queues: Vec<QueueView> = slots.map(|route| view(route, now)).collect();
        queues.sort_by(|one, other| one.route.cmp(&other.route));
        queues
    }

    pub(crate) fn depth(&self, class: Class) -> usize {
        self.lock().routes.iter().map(|route| route.queue.waiting(class)).sum()
    }

    pub(crate) fn waiters(&self) -> Vec<Waiters> {
        let waiters = |route: &RouteQueue| Waiters {
            asked: route.name.asked.clone(),
            count: route.queue.len(),
            oldest: route.queue.oldest(),
        };
        self.lock().routes.iter().map(waiters).collect()
    }

    pub(super) fn position(&self, name: &RouteName, ticket: Ticket) -> Option<usize> {
        self.lock().route(name)?.queue.position(ticket)
    }

    /// What a request for this model would find; nothing where none is known or can be had.
    pub(crate) fn forecast(
        &self,
        snapshot: &Snapshot,
        model: Option<&str>,
        class: Class,
        key: &str,
    ) -> Option<Forecast> {
        let facts = Facts { model: model.map(str::to_owned), ..Facts::default() };
        let wish = Wish { facts: &facts, need: Need::Slot, tried: &[], again: false };
        let route = find_route(snapshot, model).ok()?;
        let name = RouteName { asked: facts.model.clone(), need: Need::Slot };
        let ahead = self.lock().route(&name).map(|route| route.queue.position_of_next(class, key));
        match (ahead, look(snapshot, &wish).ok()?) {
            (None, Place::Free(_)) => Some(Forecast { position: 0, starts_in: Some(Duration::ZERO) }),
            (ahead, _) => {
                let position = ahead.unwrap_or_default();
                Some(Forecast { position, starts_in: forecast(&route, position) })
            }
        }
    }
}

fn view(route: &RouteQueue, now: Instant) -> QueueView {
    QueueView {
        route: route.name.asked.clone(),
        interactive: route.queue.waiting(Class::Interactive),
        batch: route.queue.waiting(Class::Batch),
        oldest: route.queue.oldest().map_or(Duration::ZERO, |since| now.duration_since(since)),
    }
}
