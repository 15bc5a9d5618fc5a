//! What the residency scheduler asks of the supervisors, and what it looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine_process::ExitRecord;
use instance_config::{LoadMode, LoadedInstance};
use orch_core::{ExitCode, Failure, InstanceName, UnixMillis};
use orch_runtime::Tasks;

use super::{PoolManager, blocking, unknown};
use crate::node::Node;
use crate::residency::{MemoryReport, ResidencySettings, Scheduler};
use crate::supervisor::Command;
use crate::traffic::Demand;

impl PoolManager {
    /// From here on instances are loaded and unloaded as requests and memory ask for it.
    pub fn manage_residency(&self, settings: ResidencySettings) {
        let scheduler = Arc::new(Scheduler::new(self.clone(), settings));
        let running = Arc::clone(&scheduler);
        self.shared.tasks.spawn("residency", running.run());
        // Set once: a daemon manages its memory by one set of rules.
        let _ = self.shared.scheduler.set(scheduler);
    }

    /// Who holds how much memory where, and what loading `wanted` would take; `None` where nobody manages it.
    pub async fn memory(&self, wanted: Option<&str>) -> Result<Option<MemoryReport>, Failure> {
        let catalog = self.refresh().await?;
        let wanted = wanted.map(|name| catalog.select(name)).transpose()?;
        match self.shared.scheduler.get() {
            Some(scheduler) => Ok(scheduler.report(wanted.map(|it| &it.config.name)).await),
            None => Ok(None),
        }
    }

    /// A hint that requests for an instance are about to come: one that is loaded on demand is loaded now, if it fits
    /// beside everybody who is loaded and nobody waits for another. Nobody gives way. Whether it is loaded for that.
    pub async fn prepare(&self, name: &InstanceName) -> bool {
        match self.shared.scheduler.get() {
            Some(scheduler) => scheduler.prepare(name).await,
            None => false,
        }
    }

    /// Makes room for an instance that a user starts.
    pub(super) async fn make_room(&self, name: &InstanceName) {
        if let Some(scheduler) = self.shared.scheduler.get() {
            scheduler.make_room(name).await;
        }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.shared.node)
    }

    pub(crate) fn demand(&self) -> Vec<Demand> {
        self.shared.board.traffic().demand()
    }

    /// Completes when requests or replicas changed since this was last awaited.
    pub(crate) async fn something_changed(&self) {
        tokio::select! {
            () = self.shared.board.traffic().demand_changed() => {}
            () = self.shared.board.changed() => {}
        }
    }

    /// Makes [`Self::something_changed`] complete.
    pub(crate) fn look_again(&self) {
        self.shared.board.look_again();
    }

    /// Every instance with a usable config as last read, each with the number of its replicas.
    pub(crate) async fn instances(&self) -> Vec<(LoadedInstance, u16)> {
        self.shared.pools.lock().await.values().map(|it| (it.instance.clone(), it.count)).collect()
    }

    /// Whether any instance is loaded on demand: without one there is nothing to schedule.
    pub(crate) async fn loads_on_demand(&self) -> bool {
        let pools = self.shared.pools.lock().await;
        pools.values().any(|it| it.instance.config.lifecycle.load == LoadMode::OnDemand)
    }

    /// Loads an instance for those who wait for it, and waits until it is ready.
    pub(crate) async fn load(&self, name: &InstanceName) -> Result<(), Failure> {
        let group = self.supervised(name.as_str(), false).await.ok_or_else(|| unknown(name.as_str()))?;
        group.ask(ExitCode::AlreadyRunning, |answer| Command::Load { answer }).await
    }

    /// Unloads an instance that serves nobody; one that does refuses, and stays.
    pub(crate) async fn unload(&self, name: &InstanceName, why: &str) -> Result<(), Failure> {
        let group = self.supervised(name.as_str(), false).await.ok_or_else(|| unknown(name.as_str()))?;
        let unload = |answer| Command::Unload { why: why.to_owned(), answer };
        group.ask(ExitCode::NotRunning, unload).await
    }

    /// These take no new requests from now on; everybody else does.
    pub(crate) async fn let_yield(&self, yielding: &BTreeMap<InstanceName, InstanceName>) {
        for snapshot in self.snapshots() {
            let wanted_by = yielding.get(&snapshot.instance);
            if snapshot.yielding == wanted_by.is_some() {
                continue;
            }
            if let Some(other) = wanted_by {
                let instance = &snapshot.instance;
                tracing::info!(%instance, "takes no new requests: {other} has been waited for too long");
            }
            self.tell(&snapshot.instance, || Command::Yield(wanted_by.is_some())).await;
        }
    }

    /// Tells why no request can load an instance now, or that one can again.
    pub(crate) async fn refuse(&self, name: &InstanceName, why: Option<String>) {
        let told = why.as_deref().unwrap_or("nothing stands in the way any more");
        tracing::info!(instance = %name, "requests that would load it: {told}");
        self.tell(name, || Command::Refuse(why.clone())).await;
    }

    async fn tell(&self, name: &InstanceName, command: impl Fn() -> Command) {
        if let Some(pool) = self.shared.pools.lock().await.get(name) {
            pool.tell(command).await;
        }
    }

    /// Whether an engine of this instance ended since then for want of memory.
    pub(crate) async fn ran_out_of_memory(&self, name: &InstanceName, since: UnixMillis) -> bool {
        let paths: Vec<_> = self
            .snapshots()
            .into_iter()
            .filter(|it| it.instance == *name)
            .map(|it| self.shared.node.home.exit_record(name, it.replica))
            .collect();
        let look = move || {
            let records = paths.iter().filter_map(|path| ExitRecord::read(path));
            Ok(records.into_iter().any(|record| record.out_of_memory && record.at >= since))
        };
        blocking(&self.shared.tasks, look).await.unwrap_or(false)
    }
}
