//! Engines that others may not look at, or may not signal.

use crate::faults::Faults;

/// As a program whose file may be run but not read.
#[cfg(target_os = "linux")]
pub(crate) fn hide(faults: &Faults) {
    if faults.is_on("FAKE_HIDDEN") {
        nix::sys::prctl::set_dumpable(false).expect("a process may hide itself");
    }
}

/// The whole process becomes another user's.
#[cfg(target_os = "linux")]
pub(crate) fn change_user(faults: &Faults) {
    if let Some(user) = faults.number("FAKE_USER") {
        let user = u32::try_from(user).expect("a user's number has 32 bits");
        nix::unistd::setuid(nix::unistd::Uid::from_raw(user)).expect("root may become anybody");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn hide(_: &Faults) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn change_user(_: &Faults) {}
