//! Room for logs.

use std::path::Path;

use orch_core::ByteCount;

/// What an unprivileged process may still write below this folder; `None` where the system does not tell.
pub fn free_space(folder: &Path) -> Option<ByteCount> {
    crate::sys::free_space(folder)
}
