//! The way in: at once where a place is free, else through the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use llm_adapters::Problem;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::place::{Place, choose, forecast, look};
use super::queue::{Newcomer, Pushed, Queue};
use super::waiting::Waiting;
use super::{Admission, Need, Progress, RouteName, RouteQueue, SlotGuard, State, Waiter, Wish, refusal};
use crate::facts::Class;
use crate::gateway::Shared;
use crate::limits::Limits;
use crate::live::{Snapshot, TableHandle};
use crate::metrics::Metrics;
use crate::route::{Route, find_route};

/// How often a place is looked for that others may take in the same moment.
const LOOKS: usize = 3;

/// A request that wants in.
pub(crate) struct Ask<'a> {
    pub(crate) wish: Wish<'a>,
    pub(crate) class: Class,
    /// Whose it is: the keys of a class take turns.
    pub(crate) key: &'a str,
    /// How many turns it takes.
    pub(crate) cost: u32,
    /// When it has to have a place.
    pub(crate) deadline: Instant,
    pub(crate) progress: &'a Progress,
}

/// A request that may be sent.
pub(crate) struct Admitted {
    pub(crate) slot: SlotGuard,
    pub(crate) waited: Duration,
}

/// Gives the request a place, after a wait if need be. Dropping the future ends the wait.
pub(crate) async fn enter(shared: &Shared, ask: &Ask<'_>) -> Result<Admitted, Problem> {
    let snapshot = shared.snapshot()?;
    let admission = shared.table.admission();
    if let Some(slot) = admission.enter_now(&shared.table, &snapshot, &ask.wish)? {
        if ask.wish.need == Need::Slot && !ask.wish.again {
            shared.metrics.queued_for(Duration::ZERO, ask.class);
        }
        return Ok(Admitted { slot, waited: Duration::ZERO });
    }
    let began = Instant::now();
    let waiting = admission.queue_up(shared, &snapshot, ask)?;
    drop(snapshot);
    // Boxed: it is not the common case, and would make every request's future as large as itself.
    let slot = Box::pin(waiting.slot(ask.deadline, ask.progress)).await?;
    let waited = began.elapsed();
    if !ask.wish.again {
        shared.metrics.queued_for(waited, ask.class);
    }
    Ok(Admitted { slot, waited })
}

impl Admission {
    /// A place that is free and that nobody waits for.
    fn enter_now(
        &self,
        table: &TableHandle,
        snapshot: &Snapshot,
        wish: &Wish<'_>,
    ) -> Result<Option<SlotGuard>, Problem> {
        let route = find_route(snapshot, wish.facts.model.as_deref())?;
        if self.is_contended(snapshot, &route, wish) {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            let Place::Free(target) = choose(&route, wish)? else { break };
            if let Some(slot) = SlotGuard::reserve(table, &target, wish.need) {
                return Ok(Some(slot));
            }
        }
        if wish.need == Need::Now { Err(route.unavailable()) } else { Ok(None) }
    }

    /// Whether somebody waits who might want the same place. One that was at an engine already goes before all.
    fn is_contended(&self, snapshot: &Snapshot, route: &Route<'_, '_>, wish: &Wish<'_>) -> bool {
        if self.waiting.load(Ordering::SeqCst) == 0 || wish.need != Need::Slot || wish.again {
            return false;
        }
        let state = self.lock();
        let shares = |queue: &RouteQueue| {
            let theirs = find_route(snapshot, queue.name.asked.as_deref());
            theirs.is_ok_and(|theirs| theirs.overlaps(route))
        };
        state.routes.iter().any(|queue| queue.name.need == Need::Slot && shares(queue))
    }

    fn queue_up(&self, shared: &Shared, snapshot: &Snapshot, ask: &Ask<'_>) -> Result<Waiting, Problem> {
        let mut state = self.lock();
        let queued = state.push(snapshot, ask, &shared.limits, &shared.metrics);
        if queued.is_err() {
            state.forget_empty();
        }
        let (waiting, dropped) = queued?;
        if !dropped {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
        if !ask.wish.again {
            shared.metrics.enqueued(ask.class);
        }
        // A place may have been freed, or another table published, since this was looked at, by somebody who saw
        // nobody wait.
        let newer = shared.table.snapshot().filter(|it| !std::ptr::eq(&raw const **it, snapshot));
        if let Some(newer) = newer {
            self.turn_away(&mut state, &newer);
        }
        self.serve(&mut state, &shared.table);
        drop(state);
        self.demand.notify_one();
        Ok(waiting.of(&shared.table))
    }
}

impl State {
    /// Puts a request into its queue. Tells whether another one had to go for it.
    fn push(
        &mut self,
        snapshot: &Snapshot,
        ask: &Ask<'_>,
        limits: &Limits,
        metrics: &Metrics,
    ) -> Result<(Queued, bool), Problem> {
        let now = Instant::now();
        let ticket = self.ticket();
        let wish = &ask.wish;
        let name = RouteName { asked: wish.facts.model.clone(), need: wish.need };
        let place = look(snapshot, wish)?;
        let route = find_route(snapshot, wish.facts.model.as_deref())?;
        let queue = &mut self.queue_of(&name, limits).queue;
        let (answer, answered) = oneshot::channel();
        let Wish { facts, need, tried, again } = *wish;
        let value = Waiter { facts: facts.clone(), need, tried: tried.to_vec(), again, answer };
        let newcomer = Newcomer { ticket, class: ask.class, key: Arc::from(ask.key), cost: ask.cost, value };
        let queued = Queued { name, ticket, answered };
        if again {
            queue.push_front(newcomer, now);
            return Ok((queued, false));
        }
        if matches!(place, Place::Later) {
            let ahead = queue.position_of_next(ask.class, ask.key);
            in_time(forecast(&route, ahead), ask.deadline.duration_since(now))?;
        }
        let waiting = queue.len();
        match queue.push(newcomer, now) {
            Pushed::Waits => Ok((queued, false)),
            Pushed::Instead(dropped) => {
                metrics.backpressure(limits.full_policy);
                dropped.tell(refusal::dropped(forecast(&route, waiting)));
                Ok((queued, true))
            }
            Pushed::Full(_) => {
                metrics.backpressure(limits.full_policy);
                Err(refusal::queue_full(waiting, forecast(&route, waiting)))
            }
        }
    }

    fn queue_of(&mut self, name: &RouteName, limits: &Limits) -> &mut RouteQueue {
        let known = self.routes.iter().position(|route| route.name == *name);
        let index = known.unwrap_or_else(|| {
            let queue = Queue::new(limits.queue, limits.full_policy);
            self.routes.push_back(RouteQueue { name: name.clone(), queue });
            self.routes.len() - 1
        });
        &mut self.routes[index]
    }
}

/// A request in its queue that nobody listens for yet.
struct Queued {
    name: RouteName,
    ticket: super::Ticket,
    answered: oneshot::Receiver<Result<SlotGuard, Problem>>,
}

impl Queued {
    fn of(self, table: &TableHandle) -> Waiting {
        Waiting::new(table.clone(), self.name, self.ticket, self.answered)
    }
}

fn in_time(expected: Option<Duration>, left: Duration) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected > left => Err(refusal::too_late(expected, left)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use orch_core::{InstanceName, Status, UnixMillis};

    use super::*;
    use crate::facts::Facts;
    use crate::gateway::Gateway;
    use crate::metrics::MetricsRegistry;
    use crate::routes::Routes;
    use crate::table::{Loadable, RoutedInstance, RoutingTable};

    fn table(loadable: Loadable) -> RoutingTable {
        RoutingTable::new(vec![RoutedInstance {
            name: InstanceName::new("chat").unwrap(),
            aliases: Vec::new(),
            status: Status::Stopped,
            loadable,
            created_at: UnixMillis(0),
            replicas: Vec::new(),
        }])
    }

    #[tokio::test]
    async fn whoever_begins_to_wait_while_a_table_is_published_is_told_what_that_one_says() {
        let handle = TableHandle::default();
        let registry = MetricsRegistry::default();
        let gateway = Gateway::new(handle.clone(), Limits::default(), Routes::default(), registry, None);
        handle.publish(table(Loadable::Starting));
        let seen = handle.snapshot().unwrap();
        handle.publish(table(Loadable::No));
        let facts = Facts { model: Some("chat".to_owned()), ..Facts::default() };
        let progress = Progress::default();
        let ask = Ask {
            wish: Wish { facts: &facts, need: Need::Slot, tried: &[], again: false },
            class: Class::Interactive,
            key: "anyone",
            cost: 1,
            deadline: Instant::now() + Duration::from_mins(5),
            progress: &progress,
        };
        let waiting = handle.admission().queue_up(&gateway.shared, &seen, &ask).unwrap();
        let answer = waiting.slot(ask.deadline, &progress);
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("it is told at once");
        assert_eq!(answer.err().map(|problem| problem.code), Some(orch_core::ErrorCode::ModelNotAvailable));
        assert!(handle.admission().queues(Instant::now()).is_empty());
    }
}
