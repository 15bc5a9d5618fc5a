//! The first and last things a shim does with the process that started it.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io::{self, Read, Write};
use std::path::Path;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

use crate::protocol::{REQUEST_LIMIT, Reply, Request};

pub(super) use system::leave_the_starter;
#[cfg(unix)]
pub(super) use unix::prepare_engine;

/// Which process goes on after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    #[cfg(unix)]
    Starter,
    Shim,
}

/// The task, from stdin.
pub(super) fn read_request() -> io::Result<Request> {
    let mut text = Vec::new();
    io::stdin().lock().take(REQUEST_LIMIT as u64).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Answers the starter, if it still listens, and lets go of it.
pub(super) fn answer(reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    }
    system::release_standard_streams();
}

/// A shim stays in no folder that somebody may want to unmount, except the home it works for.
pub(super) fn enter(folder: &Path) {
    if std::env::set_current_dir(folder).is_err() {
        let _ = std::env::set_current_dir("/");
    }
}
