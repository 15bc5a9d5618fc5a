//! Children that nobody asked for: the reason why a stop must end a whole tree.

use std::io;
use std::process::{Command, Stdio};

use crate::faults::Faults;

const CHILD: &str = "--fake-child";
const NEW_SESSION: &str = "--new-session";
const DEAF: &str = "--deaf";

/// How a child behaves.
#[derive(Clone, Copy)]
#[cfg_attr(not(unix), expect(dead_code, reason = "there are no sessions and no signals to be deaf to"))]
pub(crate) struct Manners {
    new_session: bool,
    deaf: bool,
}

/// Whether this process is such a child.
pub(crate) fn is_child(arguments: &[String]) -> Option<Manners> {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    has(CHILD).then(|| Manners { new_session: has(NEW_SESSION), deaf: has(DEAF) })
}

/// Starts the children that the knobs ask for. They keep stdout and stderr open, as real ones would.
pub(crate) fn spawn(faults: &Faults) -> io::Result<Vec<u32>> {
    let count = faults.number("FAKE_CHILDREN").unwrap_or(0);
    (0..count)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(CHILD).stdin(Stdio::null());
            if faults.is_on("FAKE_CHILDREN_NEW_SESSION") {
                command.arg(NEW_SESSION);
            }
            if faults.is_on("FAKE_CHILDREN_DEAF") {
                command.arg(DEAF);
            }
            // Nobody waits for it: that is the point.
            command.spawn().map(|child| child.id())
        })
        .collect()
}

/// The whole life of a child.
pub(crate) fn live(manners: Manners) -> ! {
    misbehave(manners);
    loop {
        std::thread::park();
    }
}

#[cfg(unix)]
fn misbehave(manners: Manners) {
    if manners.new_session {
        nix::unistd::setsid().expect("a fresh child leads no process group");
    }
    if manners.deaf {
        let mut deaf_to = nix::sys::signal::SigSet::empty();
        deaf_to.add(nix::sys::signal::SIGTERM);
        deaf_to.thread_block().expect("blocking SIGTERM is always allowed");
    }
}

#[cfg(not(unix))]
fn misbehave(_manners: Manners) {}
