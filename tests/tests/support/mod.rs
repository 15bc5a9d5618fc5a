//! What the end-to-end tests share: a home with an engine chosen, its daemon, streams that are watched as they
//! come, and a look at processes from outside. It knows programs, files, sockets and signals; no crate of ours.

#![allow(dead_code, reason = "each file of tests uses its part")]

pub(crate) mod database;
pub(crate) mod home;
pub(crate) mod processes;
pub(crate) mod raw_http;
pub(crate) mod sse;
pub(crate) mod stream;
pub(crate) mod terminal;
pub(crate) mod workflow;

use std::time::Duration;

/// For what takes moments on an idle machine: tests share two busy cores.
pub(crate) const SOON: Duration = Duration::from_secs(30);
