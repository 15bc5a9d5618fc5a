//! The control plane as a library: puts pool manager and gateway together behind one listener.
//!
//! At home this runs inside `llama-orch daemon`, with this machine's node linked in. The crate deliberately holds
//! no rules of its own: it reads settings, wires ports, and translates between HTTP and the libraries.
//!
//! Read first: [`daemon::run`], the start-up story, and [`client::DaemonClient`], how commands talk to it.

mod api;
mod certificate;
pub mod client;
mod conditions;
mod cordon;
mod cross_origin;
pub mod daemon;
mod front;
pub mod jobs;
pub mod keys;
mod metrics;
pub mod request_log;
mod routes;
mod routing;

pub use pool_managerd::{compose, daemon_file};
