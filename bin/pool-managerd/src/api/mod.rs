//! `/v2`: our own interface to the instances of one machine.

mod answers;
mod instances;
mod operations;
mod stats;
mod system;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{get, post};
use orch_core::{InstanceName, ReplicaId};
use pool_manager::view::Slots;
use pool_manager::{Node, PoolManager, ReplicaSnapshot};

pub use operations::{Operation, OperationState, Operations};
pub use stats::LiveStats;
pub use system::DaemonStatus;

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
        .route("/v2/version", get(system::version))
        .route("/v2/daemon", get(system::status))
        .route("/v2/events", get(system::events))
        .route("/v2/instances", get(instances::list))
        .route("/v2/instances/{name}", get(instances::describe).delete(instances::remove))
        .route("/v2/instances/{name}/start", post(instances::start))
        .route("/v2/instances/{name}/stop", post(instances::stop))
        .route("/v2/instances/{name}/restart", post(instances::restart))
        .route("/v2/stats", get(stats::list))
        .route("/v2/operations/{id}", get(operations::show))
        .fallback(answers::no_such_path)
        .method_not_allowed_fallback(answers::no_such_method)
        .with_state(state)
}
