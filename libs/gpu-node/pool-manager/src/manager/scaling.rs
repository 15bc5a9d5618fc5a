//! How many replicas each instance has: new ones begin, those that are too many drain and go, the others notice nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use instance_config::{Catalog, LoadedInstance};
use orch_core::{DesiredState, Failure, InstanceName, ReplicaId};
use tokio::sync::{oneshot, watch};

use super::{PoolManager, blocking};
use crate::node::Node;
use crate::pool::{Member, Pool};
use crate::supervisor::{Command, Supervisor};
use crate::traces::Traces;

/// Requests in flight on a replica that is too many may take so long to finish.
const FAREWELL: Duration = Duration::from_secs(30);
/// A replica that could not be stopped is left in peace so long before the next attempt.
const NEXT_ATTEMPT: Duration = Duration::from_secs(30);

/// Hears when a new supervisor has found out what there is.
type Begun = oneshot::Receiver<()>;

/// What was found out about an instance that is new, or whose config changed.
struct Survey {
    count: u16,
    /// Replicas that may live, whatever the config says.
    traces: Vec<ReplicaId>,
}

impl PoolManager {
    /// Every instance of the catalog is looked after, as its config is now.
    pub(super) async fn take_in(&self, catalog: &Catalog) -> Result<Vec<Begun>, Failure> {
        let surveys = self.survey(catalog).await?;
        let mut pools = self.shared.pools.lock().await;
        let mut beginning = Vec::new();
        for instance in &catalog.instances {
            let name = &instance.config.name;
            if let Some(survey) = surveys.get(name) {
                let pool = pools.entry(name.clone()).or_insert_with(|| Pool::new(instance.clone()));
                pool.instance = instance.clone();
                pool.gone = false;
                pool.tell(|| Command::Config(Box::new(instance.clone()))).await;
                beginning.extend(self.resize(pool, survey).await);
            } else if let Some(pool) = pools.get_mut(name) {
                self.retire_surplus(pool);
            }
        }
        Ok(beginning)
    }

    /// Looks at what is new. Counting devices may mean asking an engine, so nothing is held meanwhile.
    async fn survey(&self, catalog: &Catalog) -> Result<BTreeMap<InstanceName, Survey>, Failure> {
        let pools = self.shared.pools.lock().await;
        let is_news = |instance: &&LoadedInstance| {
            let pool = pools.get(&instance.config.name);
            pool.is_none_or(|pool| pool.gone || pool.instance.config != instance.config)
        };
        let news: Vec<LoadedInstance> = catalog.instances.iter().filter(is_news).cloned().collect();
        drop(pools);
        if news.is_empty() {
            return Ok(BTreeMap::new());
        }
        let node = Arc::clone(&self.shared.node);
        let look = move || {
            // A database that cannot be read hides what it alone knows, and keeps nobody from being looked after.
            let traces = Traces::look(&node.home, Some(&node.store));
            let traces = traces.or_else(|_| Traces::look(&node.home, None))?;
            let survey = |instance: &LoadedInstance| {
                let name = instance.config.name.clone();
                // One that cannot be counted has one replica, which refuses to start and says why.
                let count = count(&node, instance).unwrap_or(1);
                let traces = traces.of(&name).collect();
                (name, Survey { count, traces })
            };
            Ok(news.iter().map(survey).collect())
        };
        blocking(&self.shared.tasks, look).await
    }

    /// Counts the devices of an instance that has an engine for each.
    pub(super) async fn recount(&self, instance: &LoadedInstance) -> Result<(), Failure> {
        let (node, counted) = (Arc::clone(&self.shared.node), instance.clone());
        let count = blocking(&self.shared.tasks, move || count(&node, &counted)).await?;
        let mut pools = self.shared.pools.lock().await;
        // A number may have been written to the config meanwhile.
        let counts = |pool: &&mut Pool| pool.instance.config.fixed_replicas().is_none();
        let beginning = match pools.get_mut(&instance.config.name).filter(counts) {
            Some(pool) => self.resize(pool, &Survey { count, traces: Vec::new() }).await,
            None => Vec::new(),
        };
        drop(pools);
        for begun in beginning {
            // One that cannot begin because the daemon is ending is no reason to wait.
            let _ = begun.await;
        }
        Ok(())
    }

    async fn resize(&self, pool: &mut Pool, survey: &Survey) -> Vec<Begun> {
        pool.count = survey.count;
        let name = &pool.instance.config.name;
        let is_loaded = self.snapshots().iter().any(|it| {
            it.instance == *name && it.desired == DesiredState::OnDemand && it.status.has_process()
        });
        let mut beginning = Vec::new();
        for replica in (0..survey.count).map(ReplicaId) {
            let is_new = !pool.members.contains_key(&replica);
            if is_new {
                beginning.push(self.begin(pool, replica));
            }
            if (keep(pool, replica).await || is_new) && is_loaded {
                load_too(pool, replica).await;
            }
        }
        for replica in survey.traces.iter().copied().filter(|replica| replica.0 >= survey.count) {
            if !pool.members.contains_key(&replica) {
                beginning.push(self.begin(pool, replica));
            }
        }
        self.retire_surplus(pool);
        beginning
    }

    fn retire_surplus(&self, pool: &mut Pool) {
        let (count, name) = (pool.count, &pool.instance.config.name);
        let surplus = pool.members.iter_mut().filter(|(replica, _)| replica.0 >= count);
        for (replica, member) in surplus.filter(|(_, member)| member.leaving.is_none()) {
            member.leaving = Some(self.retire(name, *replica, member));
        }
    }

    fn begin(&self, pool: &mut Pool, replica: ReplicaId) -> Begun {
        let shared = &self.shared;
        let (node, board) = (Arc::clone(&shared.node), Arc::clone(&shared.board));
        let lock = Arc::clone(&pool.lock);
        let (handle, begun) = Supervisor::spawn(node, board, &shared.tasks, lock, &pool.instance, replica);
        pool.members.insert(replica, Member { handle, leaving: None });
        begun
    }

    /// Lets a replica finish what it does, ends it and forgets it. What is returned closes then.
    fn retire(&self, name: &InstanceName, replica: ReplicaId, member: &Member) -> watch::Receiver<()> {
        let (gone, leaving) = watch::channel(());
        let (manager, name, handle) = (self.clone(), name.clone(), member.handle.clone());
        self.shared.tasks.spawn("retirement", async move {
            let ended = handle.ask(|answer| Command::Retire { drain: FAREWELL, answer }).await;
            if ended.is_ok() {
                manager.forget(&name, replica).await;
            }
            drop(gone);
            if let Err(failure) = ended {
                manager.try_later(&name, replica, &failure).await;
            }
        });
        leaving
    }

    async fn forget(&self, name: &InstanceName, replica: ReplicaId) {
        let mut pools = self.shared.pools.lock().await;
        let Some(pool) = pools.get_mut(name) else { return };
        // It may be wanted again by now.
        if pool.members.get(&replica).is_none_or(|member| member.leaving.is_none()) {
            return;
        }
        pool.members.remove(&replica);
        let (node, name) = (Arc::clone(&self.shared.node), name.clone());
        let forget = move || Ok(node.store.forget_replica(&name, replica)?);
        if let Err(failure) = blocking(&self.shared.tasks, forget).await {
            tracing::warn!(%failure, "the record of a replica that is gone could not be removed");
        }
    }

    /// The engine is still there, and watched. Unless it is wanted again by now, the next look at the config after a
    /// while finds it too many once more.
    async fn try_later(&self, name: &InstanceName, replica: ReplicaId, failure: &Failure) {
        let is_leaving = |pool: &Pool| pool.members.get(&replica).is_some_and(|it| it.leaving.is_some());
        if !self.shared.pools.lock().await.get(name).is_some_and(is_leaving) {
            return;
        }
        tracing::warn!(instance = %replica.display_name(name), %failure, "one replica too many is still there");
        let token = self.shared.tasks.token();
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(NEXT_ATTEMPT) => {}
        }
        let mut pools = self.shared.pools.lock().await;
        let pool = pools.get_mut(name);
        if let Some(member) = pool.and_then(|pool| pool.members.get_mut(&replica)) {
            member.leaving = None;
        }
    }
}

/// One that was to go is wanted again; whether it was.
async fn keep(pool: &mut Pool, replica: ReplicaId) -> bool {
    let Some(member) = pool.members.get_mut(&replica) else { return false };
    let was_leaving = member.leaving.take().is_some();
    if was_leaving {
        member.handle.tell(Command::Keep).await;
    }
    was_leaving
}

/// What requests have loaded is loaded with all its replicas.
async fn load_too(pool: &Pool, replica: ReplicaId) {
    let Some(member) = pool.members.get(&replica) else { return };
    // Nobody waits for it.
    let (answer, _) = oneshot::channel();
    member.handle.tell(Command::Up { desired: DesiredState::OnDemand, join: true, answer }).await;
}

fn count(node: &Node, instance: &LoadedInstance) -> Result<u16, Failure> {
    let config = &instance.config;
    match config.fixed_replicas() {
        Some(count) => Ok(count),
        None => config.replica_count(&node.engines.resolve(config)?),
    }
}
