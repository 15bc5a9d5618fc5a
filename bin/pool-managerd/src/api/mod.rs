//! `/v2`: our own interface to the instances of one machine.

pub mod answers;
mod configs;
mod events;
mod instances;
mod logs;
mod memory;
mod operations;
mod reload;
pub mod sse;
mod stats;
mod system;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{get, post};
use orch_api::paths;
use orch_core::{InstanceName, ReplicaId};
use orch_runtime::CancellationToken;
use pool_manager::view::Slots;
use pool_manager::{Node, PoolManager, ReplicaSnapshot};

pub use answers::{Refusal, optional, valid};
pub use configs::apply as change_config;
pub use operations::{Expected, Operations};
pub use reload::reap_trials;
pub use stats::LiveStats;

/// How many slots of a ready replica are busy, where somebody counts them: at home the gateway.
pub type SlotCounter = Arc<dyn Fn(&InstanceName, ReplicaId) -> Option<u32> + Send + Sync>;

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    pub node: Arc<Node>,
    pub manager: PoolManager,
    pub slots: SlotCounter,
    pub operations: Arc<Operations>,
    pub stats: LiveStats,
    pub node_id: Arc<str>,
    pub address: std::net::SocketAddr,
    pub started: Instant,
    /// Cancelled when streams without an end have to end: the daemon stops.
    pub ending: CancellationToken,
}

impl ApiState {
    fn slots_of(
        &self,
        replicas: &[ReplicaSnapshot],
        name: &InstanceName,
        replica: ReplicaId,
    ) -> Option<Slots> {
        let snapshot =
            replicas.iter().find(|it| it.instance == *name && it.replica == replica && it.routable)?;
        let busy = (self.slots)(name, replica)?;
        Some(Slots { idle: snapshot.slots_total.saturating_sub(busy), busy })
    }
}

/// The routes of `/v2`. Who may call them is decided before.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route(paths::VERSION, get(system::version))
        .route(paths::DAEMON, get(system::status))
        .route(paths::EVENTS, get(events::list))
        .route(paths::INSTANCES, get(instances::list).post(configs::create))
        .route(paths::INSTANCE, get(instances::describe).patch(configs::change).delete(instances::remove))
        .route(paths::INSTANCE_LOGS, get(logs::show))
        .route(paths::INSTANCE_START, post(instances::start))
        .route(paths::INSTANCE_STOP, post(instances::stop))
        .route(paths::INSTANCE_RESTART, post(instances::restart))
        .route(paths::STATS, get(stats::list))
        .route(paths::MEMORY, get(memory::show))
        .route(paths::POOL_RELOAD, post(reload::reload))
        .route(paths::OPERATION, get(operations::show))
        .fallback(answers::no_such_path)
        .method_not_allowed_fallback(answers::no_such_method)
        .with_state(state)
}
