//! Linux and macOS: a fork that leaves the starter behind.
#![expect(unsafe_code, reason = "fork, signal dispositions and descriptors of a process that is still alone")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use super::Side;

/// Signals meant for a terminal's foreground or for daemons. A shim ends with its engine and never before.
const IGNORED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Forks once and gives the child a session, dispositions and descriptors of its own.
pub(in crate::shim) fn leave_the_starter() -> Side {
    // SAFETY: called first thing in main, when the process has one thread and holds no locks.
    if matches!(unsafe { fork() }, Ok(ForkResult::Parent { .. })) {
        return Side::Starter;
    }
    close_inherited();
    // Fails only for the leader of a group, which the child of a fork is not.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o077));
    for number in IGNORED {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { signal(number, SigHandler::SigIgn) };
    }
    // A starter that ignores the signal would make the kernel throw exit codes away.
    // SAFETY: as above.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
    Side::Shim
}

/// A starter may have left descriptors open for its children; a shim would hold them for weeks.
fn close_inherited() {
    const FIRST: libc::c_int = 3;
    #[cfg(target_os = "linux")]
    // SAFETY: nothing of this process owns a descriptor above the standard ones yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_int::MAX, 0) } == 0;
    #[cfg(not(target_os = "linux"))]
    let closed = false;
    if !closed {
        for descriptor in FIRST..1024 {
            // SAFETY: as above; closing what is not open does nothing.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// Closes the three standard streams and leaves nothing in their places that could be written to.
pub(super) fn release_standard_streams() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(null.as_fd());
        let _ = dup2_stdout(null.as_fd());
        let _ = dup2_stderr(null.as_fd());
    }
}

/// Between fork and exec of the engine: it gets default dispositions, whatever its ancestors ignored, and keeps
/// the one descriptor it is meant to inherit.
pub(in crate::shim) fn prepare_engine(lock: i32) -> io::Result<()> {
    restore_dispositions();
    // SAFETY: plain integers; the descriptor is open because its owner outlives the fork.
    if unsafe { libc::fcntl(lock, libc::F_SETFD, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// By system call, because the C library hides two signals of its own, which an ancestor may have ignored too.
#[cfg(target_os = "linux")]
fn restore_dispositions() {
    const HIGHEST: libc::c_long = 64;
    const MASK_BYTES: usize = 8;
    /// At least as large as the kernel's structure on any processor; all zero means the default.
    const DEFAULT: [u64; 8] = [0; 8];
    for number in 1..=HIGHEST {
        // SAFETY: the kernel reads the structure and writes none; it refuses the two signals that cannot be set,
        // which does no harm.
        unsafe {
            let previous = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), previous, MASK_BYTES);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn restore_dispositions() {
    for number in Signal::iterator() {
        // SAFETY: setting the default disposition is async-signal-safe.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
}
