//! The command line as a user meets it: the real program, its exit codes and both of its streams.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "starts the program under test, and others it has to deal with"
)]

mod configs;
mod daemon;
mod dashboard;
#[cfg(unix)]
mod doctor;
mod engines;
mod events_and_logs;
mod health;
mod life;
mod locks;
mod migrating;
mod quickstart;
mod reading;
mod refusals;
mod scene;
#[cfg(target_os = "linux")]
mod service;
mod state;
mod stats;
mod tokens;
mod workflows;
