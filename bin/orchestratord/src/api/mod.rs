//! `/v2` of the control plane, one file a thing, beside what the node that is linked in answers itself.
//!
//! A file has its handlers and a `router()` over [`ControlState`] that mounts them under the paths of `orch_api`;
//! [`router`] merges it. Every endpoint has a row in `orch_api::ENDPOINTS`, from which `/openapi.json` is made.

mod capabilities;
mod description;
mod jobs;
mod nodes;
mod placement;
mod pools;
mod requests;
mod tasks;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gateway::Gateway;
use orch_api::Capabilities;
use orch_runtime::{CancellationToken, Tasks};
use pool_manager::stats::Devices;
use pool_managerd::api::{ApiState, answers};
use tokio::sync::watch;

use crate::cordon::Cordon;
use crate::jobs::JobManager;
use crate::keys::KeyKeeper;
use crate::request_log::LogReader;

pub(crate) use capabilities::of_settings as capabilities_of;
pub(crate) use tasks::TaskBook;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct ControlState {
    pub(crate) gateway: Gateway,
    /// The node of this machine.
    pub(crate) node: ApiState,
    pub(crate) log: LogReader,
    /// Changes whenever the log has grown.
    pub(crate) log_written: watch::Receiver<u64>,
    /// Cancelled when the daemon stops: whoever follows something is let go.
    pub(crate) stopping: CancellationToken,
    pub(crate) keys: KeyKeeper,
    pub(crate) jobs: JobManager,
    /// The longest body of a request.
    pub(crate) body_bytes: u64,
    pub(crate) tasks: Arc<TaskBook>,
    /// What ends with the listener, after its time to finish.
    pub(crate) work: Tasks,
    /// That time.
    pub(crate) drain: Duration,
    pub(crate) cordon: Cordon,
    pub(crate) devices: Devices,
    /// What the settings say of them; engines and devices are looked up when somebody asks.
    pub(crate) capabilities: Arc<Capabilities>,
}

impl ControlState {
    /// Comes when the daemon stops and the time to finish is over.
    fn goodbye(&self) -> impl Future<Output = ()> + use<> {
        let (ending, drain) = (self.node.ending.clone(), self.drain);
        async move {
            ending.cancelled().await;
            tokio::time::sleep(drain).await;
        }
    }
}

/// Everything under `/v2`. Who may call it is decided before.
pub(crate) fn router(state: ControlState) -> Router {
    let node = pool_managerd::api::router(state.node.clone());
    Router::new()
        .merge(capabilities::router())
        .merge(description::router())
        .merge(jobs::router(state.body_bytes))
        .merge(nodes::router())
        .merge(placement::router())
        .merge(pools::router())
        .merge(requests::router())
        .merge(tokens::router())
        .merge(tasks::router())
        .method_not_allowed_fallback(answers::no_such_method)
        .with_state(state)
        .merge(node)
}
