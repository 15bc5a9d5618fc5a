//! Connections to engines.
//!
//! A connection is driven by whoever uses it, not by a task of its own: a request costs no hand-over between
//! tasks, and a client that goes away takes the engine's connection with it at once. The general client of
//! hyper-util spawns a task for each connection and was measured slower here.

mod connection;
mod pool;

pub(crate) use connection::{Answer, Connection, SendError};
pub(crate) use pool::IdleConnections;
