//! Carries out what [`decide`] says: a level-triggered loop over demand, residents and memory.
//!
//! It holds no plan across looks. What is under way is seen on the board, and swaps that this loop began are counted as
//! on their way until they are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use instance_config::{LoadMode, LoadedInstance, Place};
use orch_api::MemoryReport;
use orch_core::{ByteCount, DesiredState, Failure, InstanceName, ReplicaId, UnixMillis};
use tokio::sync::Mutex;

use super::book::{Book, Booked, Bookkeeper, MemoryBudget};
use super::decision::{Action, Picture, decide};
use super::planner::{Eviction, Plan, Protection, ResidencyPolicy, Resident, Urgency, Want, plan};
use super::report;
use crate::manager::PoolManager;
use crate::traffic::{Demand, ReplicaSnapshot};

/// Without any news the whole is looked at again so often.
const LOOK_PACE: Duration = Duration::from_secs(5);
/// Between two looks, however much happens.
const BREATH: Duration = Duration::from_millis(20);
/// Memory of a process that is gone comes back within moments; a load that finds less may still succeed.
const MEMORY_LIMIT: Duration = Duration::from_secs(10);
const MEMORY_PACE: Duration = Duration::from_millis(100);

/// How residency is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidencySettings {
    pub policy: ResidencyPolicy,
    pub budget: MemoryBudget,
}

/// The scheduler of one node.
pub(crate) struct Scheduler {
    manager: PoolManager,
    settings: ResidencySettings,
    bookkeeper: Arc<std::sync::Mutex<Bookkeeper>>,
    under_way: Mutex<UnderWay>,
    /// Held from a look until what was decided on it is written in `under_way`.
    deciding: Mutex<()>,
}

#[derive(Clone, Default)]
struct UnderWay {
    /// What is being loaded, by this loop or for a user.
    loading: BTreeSet<InstanceName>,
    /// What is being unloaded.
    leaving: BTreeSet<InstanceName>,
    /// How long each took to load last.
    load_times: BTreeMap<InstanceName, Duration>,
    /// What was loaded for requests that have not come yet.
    prepared: BTreeSet<InstanceName>,
    /// Whom nobody can load, and why, as it was told last.
    refused: BTreeMap<InstanceName, String>,
}

/// Everything known at one moment.
struct Look {
    picture: Picture,
    book: Book,
}

impl Scheduler {
    pub(crate) fn new(manager: PoolManager, settings: ResidencySettings) -> Self {
        Self {
            manager,
            settings,
            bookkeeper: Arc::default(),
            under_way: Mutex::default(),
            deciding: Mutex::default(),
        }
    }

    /// Looks and decides for as long as the daemon lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let token = self.manager.tasks().token();
        loop {
            let again = self.pass().await.unwrap_or(LOOK_PACE).clamp(BREATH, LOOK_PACE);
            tokio::select! {
                () = token.cancelled() => return,
                () = self.manager.something_changed() => {}
                () = tokio::time::sleep(again) => {}
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn pass(self: &Arc<Self>) -> Option<Duration> {
        if !self.manager.loads_on_demand().await {
            return None;
        }
        let _deciding = self.deciding.lock().await;
        let demand = self.manager.demand();
        let urgent = demand.iter().any(|it| it.waiting > 0);
        let mut look = self.look(&demand).await?;
        self.take_back_refusals(&look).await;
        look.picture
            .wants
            .retain(|want| demand.iter().any(|it| it.instance == want.instance && it.waiting > 0));
        let decision = decide(&look.picture, &self.settings.policy);
        self.manager.let_yield(&decision.yielding).await;
        for (instance, obstacle) in &decision.refused {
            self.refuse(instance, Some(obstacle.to_string())).await;
        }
        for action in decision.actions {
            match action {
                Action::Swap { load, evict } => self.begin_swap(load, evict).await,
                Action::UnloadIdle { instance, idle_for } => {
                    let why = format!("no request for {} s", idle_for.as_secs());
                    self.begin_unload(instance, why).await;
                }
            }
        }
        decision.again.or_else(|| urgent.then_some(Duration::from_secs(1)))
    }

    /// A refusal that no longer holds is taken back, so that the next request may load it.
    async fn take_back_refusals(&self, look: &Look) {
        let refused: Vec<InstanceName> = self.under_way.lock().await.refused.keys().cloned().collect();
        for name in refused {
            let want = look.picture.wants.iter().find(|want| want.instance == name);
            let policy = &self.settings.policy;
            let holds = want.is_some_and(|want| {
                let plan = plan(want, &look.picture.residents, &look.picture.ledger, policy);
                matches!(plan, Plan::Impossible { .. })
            });
            if !holds {
                self.refuse(&name, None).await;
            }
        }
    }

    async fn refuse(&self, name: &InstanceName, why: Option<String>) {
        let mut under_way = self.under_way.lock().await;
        let known = under_way.refused.get(name);
        if known == why.as_ref() {
            return;
        }
        match &why {
            Some(why) => under_way.refused.insert(name.clone(), why.clone()),
            None => under_way.refused.remove(name),
        };
        drop(under_way);
        self.manager.refuse(name, why).await;
    }

    /// Reads demand, board and machine.
    async fn look(&self, demand: &[Demand]) -> Option<Look> {
        self.look_at(demand, false).await
    }

    /// `everywhere`: also at devices that no instance computes on.
    async fn look_at(&self, demand: &[Demand], everywhere: bool) -> Option<Look> {
        let snapshots = self.manager.snapshots();
        let under_way = self.under_way.lock().await.clone();
        let mut booked = Vec::new();
        let mut residents = Vec::new();
        let mut idle_ttl = BTreeMap::new();
        let mut absent = Vec::new();
        for (instance, count) in self.manager.instances().await {
            let name = instance.config.name.clone();
            let replicas: Vec<&ReplicaSnapshot> = snapshots.iter().filter(|it| it.instance == name).collect();
            let moving = under_way.loading.contains(&name) || under_way.leaving.contains(&name);
            let present = moving || replicas.iter().any(|it| it.status.has_process());
            let settled = !moving && is_settled(&replicas);
            booked.push(Booked {
                pids: replicas.iter().filter_map(|it| it.pid).collect(),
                replicas: (0..count).map(|it| instance.of_replica(ReplicaId(it))).collect(),
                name: name.clone(),
                settled,
                present,
            });
            if present {
                let demand = demand.iter().find(|it| it.instance == name);
                let mut resident = resident(&instance.config, &replicas, demand, settled);
                if under_way.prepared.contains(&name) && demand.is_some_and(|it| it.idle_for.is_none()) {
                    // Nobody has waited for it, so that nobody's wait is wasted when it goes.
                    resident.loaded_for = Duration::MAX;
                }
                residents.push(resident);
                if instance.config.lifecycle.load == LoadMode::OnDemand {
                    idle_ttl.insert(name, instance.config.lifecycle.idle_ttl);
                }
            } else if may_load(&replicas) {
                absent.push(instance);
            }
        }
        let book = self.read_book(booked, everywhere).await?;
        let want = |instance: &instance_config::LoadedInstance| {
            let name = &instance.config.name;
            let oldest_wait = demand.iter().find(|it| it.instance == *name).and_then(|it| it.oldest_wait);
            let urgency = Urgency::Requests {
                oldest_wait: oldest_wait.unwrap_or_default(),
                load_time: under_way.load_times.get(name).copied().unwrap_or_default(),
            };
            want_of(instance, &book, urgency)
        };
        let wants = absent.iter().map(want).collect();
        let picture = Picture { wants, residents, idle_ttl, ledger: book.ledger.clone() };
        Some(Look { picture, book })
    }

    async fn read_book(&self, booked: Vec<Booked>, everywhere: bool) -> Option<Book> {
        let (node, bookkeeper) = (self.manager.node(), Arc::clone(&self.bookkeeper));
        let budget = self.settings.budget;
        let read = move || {
            let mut bookkeeper = bookkeeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if everywhere {
                return bookkeeper.look_at_all(&node.home, &*node.engines, &budget, &booked);
            }
            bookkeeper.look(&node, &budget, &booked)
        };
        self.manager.tasks().spawn_blocking("ledger", read).await.ok()
    }

    async fn begin_swap(self: &Arc<Self>, load: InstanceName, evict: Vec<Eviction>) {
        let mut under_way = self.under_way.lock().await;
        under_way.loading.insert(load.clone());
        under_way.leaving.extend(evict.iter().map(|it| it.instance.clone()));
        drop(under_way);
        let scheduler = Arc::clone(self);
        self.manager.tasks().spawn("swap", async move {
            if let Err(failure) = scheduler.swap(&load, &evict).await {
                tracing::info!(instance = %load, %failure, "not loaded for those who wait for it");
            }
            scheduler.under_way.lock().await.loading.remove(&load);
            scheduler.manager.look_again();
        });
    }

    /// Loads an instance for requests that are still to come, if it fits beside everybody who is there and nobody
    /// waits for another. Whether it does so.
    pub(crate) async fn prepare(self: &Arc<Self>, name: &InstanceName) -> bool {
        let _deciding = self.deciding.lock().await;
        let demand = self.manager.demand();
        let Some(Look { picture, .. }) = self.look(&demand).await else { return false };
        let is_waited_for =
            |want: &Want| demand.iter().any(|it| it.instance == want.instance && it.waiting > 0);
        if picture.wants.iter().any(is_waited_for) {
            return false;
        }
        let Some(want) = picture.wants.iter().find(|want| want.instance == *name) else { return false };
        let planned = plan(want, &picture.residents, &picture.ledger, &self.settings.policy);
        if !matches!(planned, Plan::Load { evict } if evict.is_empty()) {
            return false;
        }
        tracing::info!(instance = %name, "loading it for a step that is about to begin");
        self.under_way.lock().await.prepared.insert(name.clone());
        self.begin_swap(name.clone(), Vec::new()).await;
        true
    }

    async fn begin_unload(self: &Arc<Self>, instance: InstanceName, why: String) {
        self.under_way.lock().await.leaving.insert(instance.clone());
        let scheduler = Arc::clone(self);
        self.manager.tasks().spawn("unload", async move {
            // One that got a request meanwhile stays.
            let _ = scheduler.unload(&instance, why).await;
            scheduler.manager.look_again();
        });
    }

    async fn unload(&self, instance: &InstanceName, why: String) -> Result<(), Failure> {
        let result = self.manager.unload(instance, &why).await;
        let mut under_way = self.under_way.lock().await;
        under_way.leaving.remove(instance);
        if result.is_ok() {
            under_way.prepared.remove(instance);
        }
        result
    }

    /// Makes room, waits until it is there, and loads. A load that ran out of memory gets more room, once.
    async fn swap(&self, load: &InstanceName, evict: &[Eviction]) -> Result<(), Failure> {
        self.evict(load, evict).await?;
        self.await_memory(load).await;
        let begun = (Instant::now(), UnixMillis::now());
        let result = self.manager.load(load).await;
        if result.is_err() && self.manager.ran_out_of_memory(load, begun.1).await {
            let more = self.more_room(load).await;
            if !more.is_empty() {
                tracing::warn!(instance = %load, "it ran out of memory; others make room and it is tried once more");
                self.evict(load, &more).await?;
                self.await_memory(load).await;
                return self.manager.load(load).await;
            }
        }
        if result.is_ok() {
            self.under_way.lock().await.load_times.insert(load.clone(), begun.0.elapsed());
        }
        result
    }

    async fn evict(&self, load: &InstanceName, evict: &[Eviction]) -> Result<(), Failure> {
        let gone = evict.iter().map(|it| {
            let why = format!("{}, for {load}", it.why);
            tracing::info!(instance = %it.instance, "unloading: {why}");
            self.unload(&it.instance, why)
        });
        join_all(gone).await.into_iter().collect()
    }

    /// Who else could go when the estimate proved too small: as if it needed twice as much.
    async fn more_room(&self, load: &InstanceName) -> Vec<Eviction> {
        let Some(mut look) = self.look(&self.manager.demand()).await else { return Vec::new() };
        look.picture.ledger.holdings.remove(load);
        let Some(instance) = self.instance(load).await else {
            return Vec::new();
        };
        let mut want = want_of(&instance, &look.book, Urgency::User);
        want.at_most = true;
        let free: BTreeMap<Place, ByteCount> = want
            .need
            .keys()
            .filter_map(|place| Some((place.clone(), look.picture.ledger.available_without(place, &[])?)))
            .collect();
        for (place, bytes) in &mut want.need {
            // What was free was not enough, whatever the estimate said.
            let tried = free.get(place).copied().unwrap_or_default().max(*bytes);
            bytes.0 = tried.0.saturating_add(1);
        }
        match plan(&want, &look.picture.residents, &look.picture.ledger, &self.settings.policy) {
            Plan::Load { evict } => {
                let mut under_way = self.under_way.lock().await;
                under_way.leaving.extend(evict.iter().map(|it| it.instance.clone()));
                evict
            }
            _ => Vec::new(),
        }
    }

    /// Drivers and the system give memory back a moment after its process is gone.
    async fn await_memory(&self, load: &InstanceName) {
        let begun = Instant::now();
        while begun.elapsed() < MEMORY_LIMIT {
            let Some(mut look) = self.look(&[]).await else { return };
            look.picture.ledger.holdings.remove(load);
            let estimate = look.book.estimates.get(load).cloned().unwrap_or_default();
            let need = need_of(&estimate);
            if estimate.at_most || look.picture.ledger.shortages(&need, &[]).is_empty() {
                return;
            }
            tokio::time::sleep(MEMORY_PACE).await;
        }
        tracing::warn!(instance = %load, "memory that should be free by now is not; it is loaded all the same");
    }

    /// Who holds what, and what loading `wanted` would take. As for requests that wait since now.
    pub(crate) async fn report(&self, wanted: Option<&InstanceName>) -> Option<MemoryReport> {
        let look = self.look_at(&self.manager.demand(), true).await?;
        let (ledger, residents) = (&look.picture.ledger, &look.picture.residents);
        let mut report = MemoryReport { places: report::places(ledger, residents), plan: None };
        let wanted = match wanted {
            Some(name) => self.instance(name).await,
            None => None,
        };
        if let Some(instance) = &wanted {
            let urgency = Urgency::Requests { oldest_wait: Duration::ZERO, load_time: Duration::ZERO };
            let want = want_of(instance, &look.book, urgency);
            let estimate = look.book.estimates.get(&instance.config.name).cloned().unwrap_or_default();
            let policy = &self.settings.policy;
            report.plan = Some(report::plan_report(&want, &estimate, residents, ledger, policy));
        }
        Some(report)
    }

    async fn instance(&self, name: &InstanceName) -> Option<LoadedInstance> {
        let instances = self.manager.instances().await.into_iter().map(|(instance, _)| instance);
        instances.into_iter().find(|it| it.config.name == *name)
    }

    /// A user starts an instance by hand: what may go makes room. What may not is a warning, no refusal.
    pub(crate) async fn make_room(&self, name: &InstanceName) {
        let Some(look) = self.look(&self.manager.demand()).await else { return };
        if look.picture.residents.iter().any(|it| it.instance == *name) {
            return;
        }
        let Some(instance) = self.instance(name).await else {
            return;
        };
        let want = want_of(&instance, &look.book, Urgency::User);
        let obstacles =
            match plan(&want, &look.picture.residents, &look.picture.ledger, &self.settings.policy) {
                Plan::Load { evict } => {
                    let mut under_way = self.under_way.lock().await;
                    under_way.leaving.extend(evict.iter().map(|it| it.instance.clone()));
                    drop(under_way);
                    match self.evict(name, &evict).await {
                        Ok(()) if evict.is_empty() => {}
                        Ok(()) => self.await_memory(name).await,
                        Err(failure) => {
                            tracing::warn!(instance = %name, %failure, "no room could be made for it");
                        }
                    }
                    return;
                }
                Plan::Drain { obstacles, .. } | Plan::Wait { obstacles, .. } => obstacles,
                Plan::Impossible { obstacle } => vec![obstacle],
            };
        for obstacle in obstacles {
            tracing::warn!(instance = %name, "it may not fit: {obstacle}");
        }
    }
}

/// What an instance needs, by the estimate.
pub(super) fn want_of(instance: &instance_config::LoadedInstance, book: &Book, urgency: Urgency) -> Want {
    let config = &instance.config;
    let estimate = book.estimates.get(&config.name).cloned().unwrap_or_default();
    Want {
        instance: config.name.clone(),
        group: config.lifecycle.group.clone(),
        need: need_of(&estimate),
        at_most: estimate.at_most,
        urgency,
    }
}

fn need_of(estimate: &instance_config::MemoryEstimate) -> BTreeMap<Place, ByteCount> {
    estimate.places.iter().map(|(place, share)| (place.clone(), share.total())).collect()
}

/// Every replica that has a process is ready, and one is.
fn is_settled(replicas: &[&ReplicaSnapshot]) -> bool {
    let mut present = replicas.iter().filter(|it| it.status.has_process()).peekable();
    present.peek().is_some() && present.all(|it| it.ready_since.is_some())
}

/// A request may load it now: it is wanted on demand, and its last attempts do not forbid it.
fn may_load(replicas: &[&ReplicaSnapshot]) -> bool {
    let now = Instant::now();
    let may = |it: &&&ReplicaSnapshot| {
        it.desired == DesiredState::OnDemand && !it.gave_up && it.load_after.is_none_or(|after| after <= now)
    };
    replicas.iter().any(|it| may(&it))
}

fn resident(
    config: &instance_config::InstanceConfig,
    replicas: &[&ReplicaSnapshot],
    demand: Option<&Demand>,
    settled: bool,
) -> Resident {
    let loaded_for = replicas.iter().filter_map(|it| it.ready_since).map(|since| since.elapsed()).min();
    let loaded_for = loaded_for.unwrap_or_default();
    let idle_for = demand.and_then(|it| it.idle_for).unwrap_or(loaded_for).min(loaded_for);
    Resident {
        instance: config.name.clone(),
        group: config.lifecycle.group.clone(),
        protection: protection(config, replicas.iter().any(|it| it.desired == DesiredState::OnDemand)),
        settled,
        // Where nobody counts requests, nobody knows that there are none.
        in_flight: demand.map_or(1, |it| it.in_flight),
        waiting: demand.map_or(0, |it| it.waiting),
        idle_for,
        loaded_for,
        yielding: replicas.iter().any(|it| it.yielding),
    }
}

/// `on_demand`: it is wanted so now.
pub(super) fn protection(config: &instance_config::InstanceConfig, on_demand: bool) -> Option<Protection> {
    match config.lifecycle.load {
        _ if config.lifecycle.pin => Some(Protection::Pinned),
        LoadMode::Always => Some(Protection::Always),
        LoadMode::OnDemand if on_demand => None,
        LoadMode::Manual | LoadMode::OnDemand => Some(Protection::Manual),
    }
}
