//! Providers on real sockets: what they are sent, how their answers are read, and what becomes of their faults.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod documentation;
mod faults;
mod real_engine;
mod services;
mod support;
