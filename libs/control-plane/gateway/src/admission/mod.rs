//! Who may use a replica now, and who waits.
//!
//! A request takes a free slot at once and without a lock, as long as nobody waits for the same replicas. Otherwise
//! it waits in the queue of the route it asked for, until a place frees, a table brings one, its deadline passes or
//! its client leaves. Whoever gives a place back hands it to the one whose turn it is; no task does it for them.

mod enter;
mod line;
mod place;
mod progress;
mod queue;
mod refusal;
mod service_time;
mod slot;
mod view;
mod waiting;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use llm_adapters::Problem;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::place::{Place, look};
use self::queue::{Queue, Ticket};
use crate::facts::{Class, Facts};
use crate::live::{Snapshot, TableHandle, Target};
use crate::route::find_route;
use crate::table::ReplicaKey;

pub(crate) use self::enter::{Admitted, Ask, enter};
pub(crate) use self::progress::{Progress, Stage};
pub(crate) use self::service_time::ServiceTime;
pub(crate) use self::slot::SlotGuard;
pub use self::view::{Forecast, QueueView};

/// What a request has to have before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A slot of its own; it waits for one.
    Slot,
    /// A replica that serves; it waits for one to load.
    Replica,
    /// A replica that serves now: reading must not make anything load.
    Now,
}

/// What decides where a request may go.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) need: Need,
    /// Replicas that failed it already.
    pub(crate) tried: &'a [ReplicaKey],
    /// It had a place before and lost it through no fault of its own: now it goes before all others.
    pub(crate) again: bool,
}

/// A request in a queue.
struct Waiter {
    facts: Facts,
    need: Need,
    tried: Vec<ReplicaKey>,
    again: bool,
    /// Heard as long as the waiter is in its queue: whoever stops listening leaves the queue first.
    answer: oneshot::Sender<Result<SlotGuard, Problem>>,
}

impl Waiter {
    fn wish(&self) -> Wish<'_> {
        Wish { facts: &self.facts, need: self.need, tried: &self.tried, again: self.again }
    }
}

/// Names a queue: what was asked for (`None` = the only instance there is), and what for. Those who need no slot wait
/// apart, so that nobody looks for them whenever a slot frees.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RouteName {
    asked: Option<String>,
    need: Need,
}

/// The queue of one route.
struct RouteQueue {
    name: RouteName,
    queue: Queue<Waiter>,
}

/// Every queue.
#[derive(Default)]
pub(crate) struct Admission {
    state: Mutex<State>,
    /// How many wait in all queues together; changed under the lock, read without.
    waiting: AtomicUsize,
    /// Told when somebody comes or goes, or what they wait for changes.
    demand: Notify,
}

#[derive(Default)]
struct State {
    /// Only queues in which somebody waits; the one whose turn it is in front.
    routes: VecDeque<RouteQueue>,
    tickets: u64,
}

impl Admission {
    /// A place was given back, or there may be a new one.
    pub(crate) fn serve_waiters(&self, table: &TableHandle) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(&mut self.lock(), table);
        }
    }

    /// A replica has nothing to do: it may have to make room for what others wait for.
    fn is_idle(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.demand.notify_one();
        }
    }

    /// The table is another: whoever has nothing to hope for any more is told, all others may find a place.
    pub(crate) fn table_changed(&self, table: &TableHandle) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let mut state = self.lock();
            if let Some(snapshot) = table.snapshot() {
                self.turn_away(&mut state, &snapshot);
            }
            self.serve(&mut state, table);
        }
        self.demand.notify_one();
    }

    /// Completes when the demand has changed since the last time that this was awaited.
    pub(crate) async fn demand_changed(&self) {
        self.demand.notified().await;
    }

    /// Somebody stops waiting.
    fn leave(&self, name: &RouteName, ticket: Ticket) {
        let mut state = self.lock();
        let waiter = state.route_mut(name).and_then(|route| route.queue.remove(ticket));
        if waiter.is_some() {
            self.went(1);
            state.forget_empty();
        }
    }

    /// Gives every place that is free to the one whose turn it is: interactive requests of all routes before batch
    /// ones, and the routes one after another.
    fn serve(&self, state: &mut State, table: &TableHandle) {
        let Some(snapshot) = table.snapshot() else { return };
        for class in Class::ALL {
            let mut in_vain = 0;
            while in_vain < state.routes.len() {
                let served =
                    state.routes.front_mut().is_some_and(|route| route.serve(class, &snapshot, table));
                if served {
                    self.went(1);
                }
                in_vain = if served { 0 } else { in_vain + 1 };
                state.routes.rotate_left(1);
            }
        }
        state.forget_empty();
    }

    fn turn_away(&self, state: &mut State, snapshot: &Snapshot) {
        for route in &mut state.routes {
            let hopeless: Vec<(Ticket, Problem)> = route
                .queue
                .iter()
                .filter_map(|(ticket, waiter)| Some((ticket, look(snapshot, &waiter.wish()).err()?)))
                .collect();
            self.went(hopeless.len());
            for (ticket, problem) in hopeless {
                if let Some(waiter) = route.queue.remove(ticket) {
                    waiter.tell(problem);
                }
            }
        }
        state.forget_empty();
    }

    fn went(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::SeqCst);
        self.demand.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn route(&self, name: &RouteName) -> Option<&RouteQueue> {
        self.routes.iter().find(|route| route.name == *name)
    }

    fn route_mut(&mut self, name: &RouteName) -> Option<&mut RouteQueue> {
        self.routes.iter_mut().find(|route| route.name == *name)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn forget_empty(&mut self) {
        self.routes.retain(|route| !route.queue.is_empty());
    }
}

impl RouteQueue {
    /// Serves one waiter of a class, if there is a place for any.
    fn serve(&mut self, class: Class, snapshot: &Snapshot, table: &TableHandle) -> bool {
        if !self.may_place(snapshot) {
            return false;
        }
        let fits = |waiter: &Waiter| matches!(look(snapshot, &waiter.wish()), Ok(Place::Free(_)));
        let reserve = |waiter: &Waiter| reserve(snapshot, table, &waiter.wish());
        let served = self.queue.serve(class, Instant::now(), fits, reserve);
        let Some((waiter, slot)) = served else { return false };
        // It listens, or it would not be in the queue.
        let _ = waiter.answer.send(Ok(slot));
        true
    }

    /// Whether it is worth asking for each waiter: no queue is walked while every slot is busy.
    fn may_place(&self, snapshot: &Snapshot) -> bool {
        let Ok(route) = find_route(snapshot, self.name.asked.as_deref()) else { return false };
        let has_room = |target: &Target| self.name.need != Need::Slot || target.free_slots() > 0;
        route.targets().into_iter().any(|target| target.usable() && has_room(target))
    }
}

/// Chooses a replica and takes a place on it.
fn reserve(snapshot: &Snapshot, table: &TableHandle, wish: &Wish<'_>) -> Option<SlotGuard> {
    let route = find_route(snapshot, wish.facts.model.as_deref()).ok()?;
    match place::choose(&route, wish) {
        Ok(Place::Free(target)) => SlotGuard::reserve(table, &target, wish.need),
        Ok(Place::Later) | Err(_) => None,
    }
}

impl Waiter {
    fn tell(self, problem: Problem) {
        let _ = self.answer.send(Err(problem));
    }
}
