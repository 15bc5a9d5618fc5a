//! The routing table at work: each replica of the current table with what the gateway itself knows of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};
use orch_core::UnixMillis;
use orch_runtime::CancellationToken;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::{Admission, ServiceTime};
use crate::choose::{Breaker, Chooser, ReplicaMemory, Standing};
use crate::headers::{TargetHeaders, clean_remote_response, clean_response};
use crate::metrics::ReplicaMetrics;
use crate::provider::Provider;
use crate::signs::{Signs, SignsCounter};
use crate::table::{Replica, ReplicaKey, RoutedInstance, RoutingTable};
use crate::upstream::IdleConnections;

/// What outlives a table: counters and connections of one engine process behind one address.
pub(crate) struct LiveReplica {
    address: SocketAddr,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) busy_slots: AtomicUsize,
    /// Notified when the last request ends.
    pub(crate) emptied: Notify,
    /// When the last good probe was.
    good_probe: AtomicI64,
    /// The time of the last good probe when it refused a connection.
    refused_at_probe: AtomicI64,
    draining: AtomicBool,
    /// Its engine runs on: it is the gateway that goes.
    gateway_stops: AtomicBool,
    /// Cancelled when nothing may use this engine any more.
    pub(crate) closed: CancellationToken,
    pub(crate) idle: IdleConnections,
    pub(crate) signs: SignsCounter,
    breaker: Mutex<Breaker>,
    /// What its cache should hold.
    pub(crate) memory: ReplicaMemory,
    pub(crate) service_time: ServiceTime,
    listed_at: Instant,
    /// When its last request ended, in milliseconds after `listed_at` and one more; 0 = it had none.
    last_used: AtomicU64,
}

impl LiveReplica {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            busy_slots: AtomicUsize::new(0),
            emptied: Notify::new(),
            good_probe: AtomicI64::new(i64::MIN),
            refused_at_probe: AtomicI64::new(i64::MIN),
            draining: AtomicBool::new(false),
            gateway_stops: AtomicBool::new(false),
            closed: CancellationToken::new(),
            idle: IdleConnections::default(),
            signs: SignsCounter::default(),
            breaker: Mutex::default(),
            memory: ReplicaMemory::default(),
            service_time: ServiceTime::default(),
            listed_at: Instant::now(),
            last_used: AtomicU64::new(0),
        }
    }

    /// A whole answer to a generation came, good or not.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.signs.answered(status);
        if status.is_success() {
            self.breaker().succeeded();
        } else if SignsCounter::is_failure(status) {
            self.breaker().failed(Instant::now());
        }
    }

    /// An answer to a generation broke off, or none came.
    pub(crate) fn broke_off(&self) {
        self.signs.broke_off();
        self.breaker().failed(Instant::now());
    }

    /// What to expect of it, by how its latest generations went.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        self.breaker().standing(now)
    }

    /// A request goes there.
    pub(crate) fn chosen(&self, now: Instant) {
        self.breaker().chosen(now);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// A request gives its place back. Tells whether it was the last one.
    pub(crate) fn leave(&self, takes_slot: bool) -> bool {
        if takes_slot {
            self.busy_slots.fetch_sub(1, Ordering::SeqCst);
        }
        let used = self.listed_at.elapsed().as_millis() as u64 + 1;
        self.last_used.fetch_max(used, Ordering::Relaxed);
        let was_last = self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last {
            self.emptied.notify_waiters();
        }
        was_last
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// When its last request ended.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        let used = self.last_used.load(Ordering::Relaxed).checked_sub(1)?;
        self.listed_at.checked_add(Duration::from_millis(used))
    }

    /// Why an answer was cut off, for the client that hears of it.
    pub(crate) fn why_closed(&self) -> &'static str {
        if self.gateway_stops.load(Ordering::SeqCst) {
            "the gateway is stopping; the engine runs on"
        } else {
            "the engine was stopped while it answered"
        }
    }

    fn close(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.closed.cancel();
        self.idle.clear();
    }
}

/// One replica as a request sees it.
pub(crate) struct Target {
    pub(crate) replica: Replica,
    /// The replica's own, to be kept where a target is not.
    pub(crate) key: Arc<ReplicaKey>,
    pub(crate) live: Arc<LiveReplica>,
    pub(crate) headers: TargetHeaders,
    pub(crate) metrics: OnceLock<ReplicaMetrics>,
    /// Set where this is somebody else's server.
    pub(crate) provider: Option<Provider>,
}

impl Target {
    /// Whether a new request may go there.
    pub(crate) fn usable(&self) -> bool {
        self.replica.ready
            && !self.replica.draining
            && !self.live.is_draining()
            && self.live.good_probe.load(Ordering::Relaxed)
                > self.live.refused_at_probe.load(Ordering::Relaxed)
    }

    /// Slots that this gateway has not filled. Negative when requests already wait inside the engine.
    pub(crate) fn free_slots(&self) -> i64 {
        // In one order with the count of those who wait: whoever frees a slot looks at that, and whoever begins to wait
        // looks here, so that one of them sees the other.
        let busy = self.live.busy_slots.load(Ordering::SeqCst);
        i64::from(self.replica.slots_total) - i64::try_from(busy).unwrap_or(i64::MAX)
    }

    /// Takes out of the headers of its answer what is not the client's.
    pub(crate) fn clean_response(&self, headers: &mut HeaderMap) {
        if self.provider.is_some() {
            clean_remote_response(headers);
        } else {
            clean_response(headers);
        }
    }

    /// It refused a connection: it is out until a newer good probe.
    pub(crate) fn mark_refused(&self) {
        let probe = self.live.good_probe.load(Ordering::Relaxed);
        self.live.refused_at_probe.fetch_max(probe, Ordering::Relaxed);
        self.live.idle.clear();
        self.live.memory.forget_all();
    }
}

/// A published table with its live replicas, in the order of the table's instances.
pub(crate) struct Snapshot {
    pub(crate) table: RoutingTable,
    pub(crate) targets: Vec<Vec<Arc<Target>>>,
    /// The same for all tables of a gateway.
    pub(crate) chooser: Arc<Chooser>,
}

impl Snapshot {
    pub(crate) fn instances(&self) -> impl Iterator<Item = (&RoutedInstance, &[Arc<Target>])> {
        self.table.instances.iter().zip(self.targets.iter().map(Vec::as_slice))
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every request ended by itself.
    Idle,
    /// So many requests were cut off at the deadline, each with a terminal error.
    Cut(usize),
}

/// The place where tables are published and requests find the current one. Clones share it.
#[derive(Clone, Default)]
pub struct TableHandle {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    current: ArcSwapOption<Snapshot>,
    live: Mutex<HashMap<ReplicaKey, Arc<LiveReplica>>>,
    chooser: Arc<Chooser>,
    admission: Admission,
}

impl TableHandle {
    /// Replaces the routing table. Requests that are under way are not touched; when this returns, every new
    /// request sees the new table. Counters and connections of a replica are kept while its address stays.
    pub fn publish(&self, table: RoutingTable) {
        let mut live = self.lock();
        let mut next = HashMap::with_capacity(live.len());
        let targets = table
            .instances
            .iter()
            .map(|instance| {
                instance.replicas.iter().map(|replica| target(instance, replica, &live, &mut next)).collect()
            })
            .collect();
        for (key, gone) in live.drain() {
            if !next.get(&key).is_some_and(|kept| Arc::ptr_eq(kept, &gone)) {
                gone.idle.clear();
            }
        }
        *live = next;
        let chooser = Arc::clone(&self.inner.chooser);
        self.inner.current.store(Some(Arc::new(Snapshot { table, targets, chooser })));
        drop(live);
        self.inner.admission.table_changed(self);
    }

    pub(crate) fn chooser(&self) -> &Chooser {
        &self.inner.chooser
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.current.load_full()
    }

    /// Ends every connection to a replica now, because the gateway stops; its requests get a terminal error that
    /// says so. It gets no further request until a table lists it as ready again.
    pub fn close_replica(&self, key: &ReplicaKey) {
        if let Some(live) = self.find(key) {
            live.gateway_stops.store(true, Ordering::SeqCst);
            live.close();
        }
    }

    /// Sends nothing new to a replica, waits for its requests to end, and closes it: at the deadline those
    /// that are left are cut off. A table that lists it as ready again opens it again.
    pub async fn drain(&self, key: &ReplicaKey, deadline: Duration) -> DrainOutcome {
        let Some(live) = self.find(key) else { return DrainOutcome::Idle };
        live.draining.store(true, Ordering::SeqCst);
        live.idle.clear();
        let drained = tokio::time::timeout(deadline, emptied(&live)).await;
        let left = live.in_flight.load(Ordering::SeqCst);
        live.close();
        if drained.is_ok() { DrainOutcome::Idle } else { DrainOutcome::Cut(left) }
    }

    /// A replica answered a probe well. One that refused a connection earlier is tried again.
    pub fn note_good_probe(&self, key: &ReplicaKey, at: UnixMillis) {
        if let Some(live) = self.find(key) {
            live.good_probe.fetch_max(at.0, Ordering::Relaxed);
            self.inner.admission.serve_waiters(self);
        }
    }

    /// How generations on a replica have been going since it is listed at its address.
    pub fn signs(&self, key: &ReplicaKey) -> Signs {
        self.find(key).map_or_else(Signs::default, |live| live.signs.read())
    }

    /// How many slots of a replica this gateway keeps busy.
    pub fn busy_slots(&self, key: &ReplicaKey) -> usize {
        self.find(key).map_or(0, |live| live.busy_slots.load(Ordering::Relaxed))
    }

    /// How many requests of any kind a replica is working on.
    pub fn in_flight(&self, key: &ReplicaKey) -> usize {
        self.find(key).map_or(0, |live| live.in_flight.load(Ordering::Relaxed))
    }

    fn find(&self, key: &ReplicaKey) -> Option<Arc<LiveReplica>> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReplicaKey, Arc<LiveReplica>>> {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn emptied(live: &LiveReplica) {
    loop {
        let emptied = live.emptied.notified();
        if live.in_flight.load(Ordering::SeqCst) == 0 {
            return;
        }
        emptied.await;
    }
}

fn target(
    instance: &RoutedInstance,
    replica: &Replica,
    live: &HashMap<ReplicaKey, Arc<LiveReplica>>,
    next: &mut HashMap<ReplicaKey, Arc<LiveReplica>>,
) -> Arc<Target> {
    let kept = live.get(&replica.key).filter(|known| {
        let revived = replica.ready && known.closed.is_cancelled();
        known.address == replica.address && !revived
    });
    let live = kept.map_or_else(|| Arc::new(LiveReplica::new(replica.address)), Arc::clone);
    live.good_probe.fetch_max(replica.last_good_probe.0, Ordering::Relaxed);
    next.insert(replica.key.clone(), Arc::clone(&live));
    Arc::new(Target {
        headers: TargetHeaders::new(instance, replica),
        replica: replica.clone(),
        key: Arc::new(replica.key.clone()),
        live,
        metrics: OnceLock::new(),
        provider: None,
    })
}
