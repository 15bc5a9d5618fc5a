//! From desired to actual: the engines of one home are started, watched, restarted, adopted and stopped here.
//!
//! The crate deliberately does not know how requests reach an engine (it tells a [`Traffic`] port what is
//! routable), how engines are installed (an [`EngineResolver`] finds them) or who asks (a command without a
//! daemon uses [`alone`], the daemon holds a [`PoolManager`]).
//!
//! Read first: [`lifecycle::Lifecycle`], the pure state machine of one replica, and [`PoolManager`].

mod actual;
pub mod alone;
mod board;
mod changes;
mod completion;
mod crash;
mod engine;
mod instance_lock;
pub mod lifecycle;
mod manager;
mod node;
mod operate;
mod orphans;
mod plan;
mod policy;
mod pool;
mod probe;
mod record;
mod remnants;
mod removal;
pub mod residency;
mod shown;
pub mod stats;
mod supervisor;
mod suspicion;
mod traces;
mod traffic;
pub mod view;

pub use actual::{Actual, LiveEngine, observe, row_identity};
pub use engine::running_key;
pub use manager::PoolManager;
pub use node::{EngineResolver, Node};
pub use plan::{StartPlan, preview_start};
pub use probe::{ProbeReport, Prober};
pub use remnants::{LeftReplica, Remnant, remnant, remnants};
pub use traffic::{BoxFuture, Demand, ReplicaSnapshot, RequestSigns, Traffic};
