//! What keeps a daemon well that runs for months: old records and logs go, its own log stays small, its memory and the
//! room that logs take are told, and a state database that was lost or cannot be used is noticed.

use std::sync::Arc;
use std::time::Duration;

use engine_process::LARGE_LOGS;
use instance_config::{LoadedInstance, discover, log_path};
use orch_core::{ByteCount, EventLevel, EventType, Failure, ReplicaId, UnixMillis};
use orch_runtime::Tasks;
use pool_manager::Node;
use serde_json::json;
use state_store::{NewEvent, Pruned, StoreCondition};

use crate::own_log;

/// How often old records and logs are thrown away, and memory and room are told.
const TIDY_PACE: Duration = Duration::from_hours(1);
/// How often the state database is looked at.
const STORE_PACE: Duration = Duration::from_secs(2);
/// How often the size of the daemon's own log is looked at.
const LOG_PACE: Duration = Duration::from_secs(5);

/// Starts what has to be done again and again. `on_store` hears whenever the state database becomes unusable, and why,
/// and when it is usable again.
pub fn keep_house(node: &Arc<Node>, tasks: &Tasks, on_store: impl Fn(Option<String>) + Send + 'static) {
    tasks.spawn("housekeeping", tidy_forever(Arc::clone(node), tasks.clone()));
    tasks.spawn("store-watch", watch_store(Arc::clone(node), tasks.clone(), on_store));
    tasks.spawn("own-log", bound_own_log(Arc::clone(node), tasks.clone()));
}

async fn tidy_forever(node: Arc<Node>, owner: Tasks) {
    loop {
        let node = Arc::clone(&node);
        if let Some(tidied) = blocking(&owner, move || tidy(&node)).await {
            tidied.tell();
        }
        if !rest(&owner, TIDY_PACE).await {
            return;
        }
    }
}

async fn watch_store(node: Arc<Node>, owner: Tasks, on_change: impl Fn(Option<String>) + Send) {
    let mut watch = StoreWatch { trouble: None, on_change };
    loop {
        let node = Arc::clone(&node);
        if let Some(condition) = blocking(&owner, move || look_at_store(&node)).await {
            watch.heard(condition);
        }
        if !rest(&owner, STORE_PACE).await {
            return;
        }
    }
}

async fn bound_own_log(node: Arc<Node>, owner: Tasks) {
    loop {
        let log = node.home.daemon_log();
        blocking(&owner, move || own_log::keep_small(&log)).await;
        if !rest(&owner, LOG_PACE).await {
            return;
        }
    }
}

/// False when the daemon ends.
async fn rest(owner: &Tasks, pace: Duration) -> bool {
    let token = owner.token();
    tokio::select! {
        () = token.cancelled() => false,
        () = tokio::time::sleep(pace) => true,
    }
}

/// `None` when the daemon ends meanwhile.
async fn blocking<T: Send + 'static>(owner: &Tasks, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    owner.spawn_blocking("housekeeping", work).await.ok()
}

/// What an hour's tidying found and did.
#[derive(Debug)]
pub struct Tidied {
    pub pruned: Result<Pruned, Failure>,
    pub logs_removed: usize,
    pub logs_total: ByteCount,
    /// The daemon's own memory.
    pub resident: Option<ByteCount>,
}

/// Throws away what is older than its retention, and looks how much room is taken.
pub fn tidy(node: &Node) -> Tidied {
    let catalog = discover(&node.home);
    let instances = catalog.map(|catalog| catalog.instances).unwrap_or_default();
    Tidied {
        pruned: node.store.prune(UnixMillis::now()).map_err(Failure::from),
        logs_removed: instances.iter().map(|instance| remove_old_logs(node, instance)).sum(),
        logs_total: engine_process::total_size(&node.home.logs()),
        resident: engine_process::rss_bytes(std::process::id()),
    }
}

/// While an engine runs its shim does the same; afterwards nobody else does. The live file stays.
fn remove_old_logs(node: &Node, instance: &LoadedInstance) -> usize {
    let (config, logs) = (&instance.config, &instance.config.logs);
    if logs.retention_days == 0 {
        return 0;
    }
    let retention = Duration::from_hours(24 * u64::from(logs.retention_days));
    let live = [&logs.stdout, &logs.stderr].map(|it| log_path(it, config, &node.home, ReplicaId::FIRST));
    let old = live.iter().flat_map(|path| engine_process::old_logs(path, true, retention));
    old.filter(|path| std::fs::remove_file(path).is_ok()).count()
}

impl Tidied {
    fn tell(&self) {
        match &self.pruned {
            Ok(pruned) => tracing::info!(
                resident = %self.resident.unwrap_or(ByteCount(0)),
                logs = %self.logs_total,
                events_pruned = pruned.events,
                health_checks_pruned = pruned.health_checks,
                logs_removed = self.logs_removed,
                "housekeeping"
            ),
            Err(failure) => tracing::warn!(%failure, "old events could not be pruned"),
        }
        if self.logs_total > LARGE_LOGS {
            tracing::warn!(
                logs = %self.logs_total,
                "the logs of this home take more than {LARGE_LOGS}; `llama-orch logs clean` frees room"
            );
        }
    }
}

/// How the database is kept, and whether it answers. A mend is written down where it can be.
fn look_at_store(node: &Node) -> StoreCondition {
    let condition = node.store.condition();
    if let StoreCondition::Mended { what } = &condition {
        let message = format!("the state database {what}");
        tracing::warn!("{message}");
        let event = NewEvent {
            instance: None,
            level: EventLevel::Warning,
            event_type: EventType::Reconciled,
            message,
            meta: Some(json!({"database": node.home.database()})),
        };
        if let Err(error) = node.store.append_event(&event, UnixMillis::now()) {
            tracing::warn!(%error, "the mend of the state database could not be written down");
        }
    }
    condition
}

/// Tells changes, not states.
struct StoreWatch<F> {
    trouble: Option<String>,
    on_change: F,
}

impl<F: Fn(Option<String>)> StoreWatch<F> {
    fn heard(&mut self, condition: StoreCondition) {
        let trouble = match condition {
            StoreCondition::Unusable { reason } => Some(reason),
            StoreCondition::Sound | StoreCondition::Mended { .. } => None,
        };
        if trouble == self.trouble {
            return;
        }
        if let Some(reason) = &trouble {
            tracing::error!(%reason, "the state database cannot be used; serving goes on");
        } else {
            tracing::info!("the state database can be used again");
        }
        self.trouble.clone_from(&trouble);
        (self.on_change)(trouble);
    }
}

#[cfg(test)]
mod tests;
