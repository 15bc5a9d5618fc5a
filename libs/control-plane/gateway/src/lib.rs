//! The data plane of the control plane: takes a client's request, finds the engine that has the model, and
//! lets the bytes through.
//!
//! This crate deliberately knows no process, no database and no configuration file. It is *given* a routing
//! table and keeps serving from the last one it got; it is told when a replica goes away. It also does not
//! authenticate: the listener in front of it does.
//!
//! Read first: `Call` in `call.rs`, the path of every request in visible steps, and [`RoutingTable`], all it
//! knows about the world.

mod admission;
mod body;
mod call;
mod caller;
mod choose;
mod deferred;
mod demand;
mod dispatch;
mod facts;
mod flight;
mod gateway;
mod headers;
mod incoming;
mod limits;
mod live;
mod metrics;
mod models;
mod ollama;
mod provider;
mod quota;
mod record;
mod respond;
mod rewrite;
mod route;
mod routes;
mod signs;
mod stream;
mod table;
mod translated;
mod upstream;
mod verdict;

pub use admission::{Forecast, QueueView};
pub use body::{AnswerBroken, GatewayBody};
pub use caller::{Caller, CallerFacts};
pub use choose::{Considered, Decision, Strategy};
pub use demand::Demand;
pub use facts::Class;
pub use gateway::{Gateway, data_paths};
pub use limits::Limits;
pub use live::{DrainOutcome, TableHandle};
pub use llm_adapters::{Dialect, Problem, Usage};
pub use metrics::MetricsRegistry;
pub use provider::{ProviderKind, ProviderSettings};
pub use quota::{KeyLimits, Ledger, Quota};
pub use record::{Outcome, RequestLog, RequestRecord};
pub use respond::refuse;
pub use rewrite::Rewrite;
pub use route::hopelessness;
pub use routes::{RouteRule, Routes};
pub use signs::Signs;
pub use table::{Loadable, Replica, ReplicaKey, RoutedInstance, RoutedNode, RoutingTable};
