//! What the control plane of one home keeps: API keys with what they have spent, the request log, and which nodes are
//! cordoned.
//!
//! One SQLite file, `state/control.sqlite`, apart from the state of the machine's instances: a control plane may run
//! without a node, and a node without a control plane. Each kind of record has a file here with its tables, its
//! types and its methods; a method is one transaction, safe against a kill at any moment and against other processes
//! that do the same. This crate deliberately knows no request, no secret (only digests reach it) and no clock.
//!
//! Read first: [`ControlReader`], which changes no byte and creates nothing, and [`ControlStore`], which derefs to
//! it and adds what writes.

mod access;
mod error;
mod keys;
mod migrations;
mod nodes;
mod requests;

pub use access::{ControlReader, ControlStore};
pub use error::ControlError;
pub use keys::{KeyRow, NewKey};
pub use migrations::SCHEMA_VERSION;
pub use requests::{
    PrunedRequests, RequestEntry, RequestOutcome, RequestQuery, RequestRow, UnknownOutcome, UsageQuery,
    UsageRow,
};
