//! All instances of a home under one roof: finds them, gives each a supervisor, and keeps looking whether what
//! is wanted and what is there have drifted apart.

mod loading;
mod scaling;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instance_config::{Catalog, discover};
use orch_core::{DesiredState, ExitCode, Failure, InstanceName};
use orch_runtime::Tasks;
use tokio::sync::{Mutex, OnceCell};

use crate::alone;
use crate::board::Board;
use crate::node::Node;
use crate::orphans;
use crate::policy::desired_after_up;
use crate::pool::{Group, Pool};
use crate::remnants::remnant;
use crate::removal;
use crate::residency::Scheduler;
use crate::supervisor::Command;
use crate::traffic::{ReplicaSnapshot, Traffic};

/// How often configs and desired states are read again.
const RECONCILE_PACE: Duration = Duration::from_secs(5);
/// How often engines are looked for that no config claims.
const ORPHAN_PACE: Duration = Duration::from_secs(60);

/// A handle to the pool manager; cheap to clone.
#[derive(Clone)]
pub struct PoolManager {
    shared: Arc<Shared>,
}

struct Shared {
    node: Arc<Node>,
    board: Arc<Board>,
    tasks: Tasks,
    pools: Mutex<BTreeMap<InstanceName, Pool>>,
    /// Configs are read and applied by one after the other: what was read earlier never comes later.
    reading: Mutex<()>,
    /// Absent in a program that leaves loading to its users.
    scheduler: OnceCell<Arc<Scheduler>>,
}

impl PoolManager {
    /// Finds the instances and starts to look after them: living engines are adopted, wanted ones started.
    pub async fn start(node: Arc<Node>, traffic: Arc<dyn Traffic>, tasks: &Tasks) -> Result<Self, Failure> {
        let shared = Shared {
            node,
            board: Arc::new(Board::new(traffic)),
            tasks: tasks.clone(),
            pools: Mutex::default(),
            reading: Mutex::default(),
            scheduler: OnceCell::new(),
        };
        let manager = Self { shared: Arc::new(shared) };
        let catalog = manager.refresh().await?;
        manager.tell_of_orphans(catalog).await;
        let reconciler = manager.clone();
        tasks.spawn("reconciler", async move { reconciler.reconcile_forever().await });
        Ok(manager)
    }

    /// Engines that no config claims are told of, and left alone.
    async fn tell_of_orphans(&self, catalog: Catalog) {
        let node = Arc::clone(&self.shared.node);
        let work = move || orphans::tell(&node, &catalog);
        if let Err(failure) = blocking(&self.shared.tasks, work).await {
            tracing::warn!(%failure, "engines without a config could not be looked for");
        }
    }

    /// The current truth about all replicas.
    pub fn snapshots(&self) -> Vec<ReplicaSnapshot> {
        self.shared.board.snapshots()
    }

    /// Starts an instance and waits until requests are routed to all its replicas, and those that it has too many are
    /// gone.
    pub async fn up(&self, selector: &str) -> Result<(), Failure> {
        let (group, desired) = self.find_to_start(selector).await?;
        self.make_room(group.name()).await;
        let join = group.is_several();
        let started = group.ask(ExitCode::AlreadyRunning, |answer| Command::Up { desired, join, answer });
        let result = started.await;
        group.left().await;
        result
    }

    /// Stops an instance: nothing is routed to it when this returns. `drain` bounds the wait for requests in flight.
    pub async fn down(&self, selector: &str, force: bool, drain: Duration) -> Result<(), Failure> {
        let group = match self.find(selector).await {
            Ok(name) => self.supervised(name.as_str(), true).await,
            Err(failure) => match self.supervised(selector, true).await {
                Some(group) => Some(group),
                None => return self.down_unsupervised(selector, force, failure).await,
            },
        };
        let group = group.ok_or_else(|| unknown(selector))?;
        group.ask(ExitCode::NotRunning, |answer| Command::Down { force, drain, answer }).await
    }

    /// The supervisors of an instance. One whose config broke or went away while its engine ran is still looked after.
    async fn supervised(&self, name: &str, leaving: bool) -> Option<Group> {
        let name = InstanceName::new(name).ok()?;
        self.shared.pools.lock().await.get(&name).map(|pool| pool.group(leaving))
    }

    /// An engine that was left behind by a config this daemon never could read.
    async fn down_unsupervised(&self, name: &str, force: bool, failure: Failure) -> Result<(), Failure> {
        let Ok(name) = InstanceName::new(name) else { return Err(failure) };
        let node = Arc::clone(&self.shared.node);
        let work = move || alone::down_by_name(&node, &name, force);
        match blocking(&self.shared.tasks, work).await {
            Err(nothing) if nothing.exit == ExitCode::NotRunning => Err(failure),
            result => result,
        }
    }

    /// Stops and starts an instance; starts a stopped one.
    pub async fn restart(&self, selector: &str, force: bool, drain: Duration) -> Result<(), Failure> {
        let (group, desired) = self.find_to_start(selector).await?;
        let restart = |answer| Command::Restart { desired, force, drain, answer };
        let result = group.ask(ExitCode::AlreadyRunning, restart).await;
        group.left().await;
        result
    }

    /// Removes an instance, or what is left of one; a running one only with `force`.
    pub async fn remove(&self, selector: &str, force: bool, keep_logs: bool) -> Result<(), Failure> {
        let catalog = self.refresh().await?;
        let (name, config) = match catalog.select(selector) {
            Ok(instance) => (instance.config.name.clone(), Some(instance.path.clone())),
            Err(failure) => match self.left_behind(selector, &catalog).await? {
                Some(found) => found,
                None => return Err(failure),
            },
        };
        let stopped = self.snapshots().iter().all(|it| it.instance != name || !it.status.has_process());
        if !stopped && !force {
            return Err(removal::still_running(&name));
        }
        if let Some(group) = self.supervised(name.as_str(), true).await {
            let down = |answer| Command::Down { force: true, drain: Duration::ZERO, answer };
            match group.ask(ExitCode::NotRunning, down).await {
                Err(failure) if failure.exit != ExitCode::NotRunning => return Err(failure),
                _ => {}
            }
        }
        self.shared.pools.lock().await.remove(&name);
        let node = Arc::clone(&self.shared.node);
        let work = move || alone::remove_remnant(&node, &name, config.as_deref(), force, keep_logs);
        blocking(&self.shared.tasks, work).await
    }

    /// Whether something is left by a name that no usable config claims.
    pub async fn knows_remnant(&self, name: &str) -> Result<bool, Failure> {
        let catalog = self.refresh().await?;
        Ok(self.left_behind(name, &catalog).await?.is_some())
    }

    /// What no usable config claims: its name, and the file that cannot be used.
    async fn left_behind(
        &self,
        selector: &str,
        catalog: &Catalog,
    ) -> Result<Option<(InstanceName, Option<PathBuf>)>, Failure> {
        let Ok(name) = InstanceName::new(selector) else { return Ok(None) };
        let broken = catalog.broken.iter().find(|it| it.name == selector).map(|it| it.path.clone());
        let (node, sought) = (Arc::clone(&self.shared.node), name.clone());
        let work = move || remnant(&node.home, Some(&node.store), &sought);
        let left = blocking(&self.shared.tasks, work).await?;
        Ok((left.is_some() || broken.is_some()).then_some((name, broken)))
    }

    async fn find(&self, selector: &str) -> Result<InstanceName, Failure> {
        let catalog = self.refresh().await?;
        Ok(catalog.select(selector)?.config.name.clone())
    }

    /// The replicas that a start is for, and what is wanted of them from then on. Devices are counted now.
    async fn find_to_start(&self, selector: &str) -> Result<(Group, DesiredState), Failure> {
        let catalog = self.refresh().await?;
        let instance = catalog.select(selector)?;
        let (config, name) = (&instance.config, &instance.config.name);
        if config.fixed_replicas().is_none() {
            self.recount(instance).await?;
        }
        let group = self.supervised(name.as_str(), false).await.ok_or_else(|| unknown(selector))?;
        Ok((group, desired_after_up(config)))
    }

    /// Reads the configs again: new instances get supervisors, changed ones are told, removed ones let go. When
    /// this returns, requests are routed to every instance that runs.
    pub async fn refresh(&self) -> Result<Catalog, Failure> {
        let reading = self.shared.reading.lock().await;
        let node = Arc::clone(&self.shared.node);
        let read = move || {
            discover(&node.home).map_err(|error| {
                let folder = node.home.instances();
                Failure::new(ExitCode::General, format!("cannot read {}: {error}", folder.display()))
            })
        };
        let catalog = blocking(&self.shared.tasks, read).await?;
        let beginning = self.take_in(&catalog).await?;
        let lost = self.let_go(&catalog).await;
        drop(reading);
        if lost {
            self.tell_of_orphans(catalog.clone()).await;
        }
        for begun in beginning {
            // One that cannot begin because the daemon is ending is no reason to wait.
            let _ = begun.await;
        }
        Ok(catalog)
    }

    /// Lets go what no config speaks of any more; whether an engine that runs has lost its config by that.
    async fn let_go(&self, catalog: &Catalog) -> bool {
        // A config that became unreadable keeps its supervisors: the model it started still serves.
        let broken = |name: &InstanceName| catalog.broken.iter().any(|it| it.name == name.as_str());
        let known = |name: &InstanceName| catalog.instances.iter().any(|it| it.config.name == *name);
        let snapshots = self.snapshots();
        let runs =
            |name: &InstanceName| snapshots.iter().any(|it| it.instance == *name && it.status.has_process());
        let mut pools = self.shared.pools.lock().await;
        pools.retain(|name, _| known(name) || broken(name) || runs(name));
        let mut lost = false;
        for (name, pool) in pools.iter_mut() {
            if !pool.gone && !known(name) && !broken(name) {
                pool.gone = true;
                lost = true;
                pool.tell(|| Command::ConfigGone).await;
            }
        }
        lost
    }

    async fn reconcile_forever(&self) {
        let token = self.shared.tasks.token();
        let mut sought = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(RECONCILE_PACE) => {}
            }
            match self.reconcile().await {
                Ok(catalog) if sought.elapsed() >= ORPHAN_PACE => {
                    sought = tokio::time::Instant::now();
                    self.tell_of_orphans(catalog).await;
                }
                Ok(_) => {}
                Err(failure) => {
                    tracing::warn!(%failure, "configs or desired states could not be read; trying again");
                }
            }
        }
    }

    /// Reads what is wanted and tells whoever thinks otherwise.
    async fn reconcile(&self) -> Result<Catalog, Failure> {
        let catalog = self.refresh().await?;
        let node = Arc::clone(&self.shared.node);
        let rows = blocking(&self.shared.tasks, move || Ok(node.store.instances()?)).await?;
        let wanted: BTreeMap<InstanceName, DesiredState> =
            rows.into_iter().map(|row| (row.name, row.desired_state)).collect();
        let pools = self.shared.pools.lock().await;
        for snapshot in self.snapshots() {
            let differs = wanted.get(&snapshot.instance).is_some_and(|desired| *desired != snapshot.desired);
            let pool = pools.get(&snapshot.instance).filter(|_| differs);
            if let Some(member) = pool.and_then(|pool| pool.members.get(&snapshot.replica)) {
                member.handle.tell(Command::LookAtDesired).await;
            }
        }
        Ok(catalog)
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(ExitCode::InstanceNotFound, format!("no instance is called {name}"))
}

async fn blocking<T, F>(tasks: &Tasks, work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    let joined = tasks.spawn_blocking("state", work).await;
    joined.unwrap_or_else(|error| {
        Err(Failure::new(ExitCode::General, format!("a step was cut short: {error}")))
    })
}
