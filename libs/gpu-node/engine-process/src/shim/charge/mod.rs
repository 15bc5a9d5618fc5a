//! The engine, as the shim that looks after it holds it.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::Charge;
#[cfg(windows)]
pub(super) use windows::Charge;
