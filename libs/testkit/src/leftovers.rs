//! Finding and killing what a test left running.

use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
#[path = "leftovers/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "leftovers/other.rs"]
mod system;

/// Kills every process but this one that uses `folder`, until none is left; returns those that would not die.
///
/// Killing is repeated because a daemon may start a new engine between the look and the kill.
pub(crate) fn kill_everything_that_uses(folder: &Path) -> Vec<u32> {
    let begin = Instant::now();
    loop {
        let pids = system::users_of(folder);
        if pids.is_empty() || begin.elapsed() > Duration::from_secs(5) {
            return pids;
        }
        for &pid in &pids {
            system::kill(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
