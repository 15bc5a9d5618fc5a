//! Room for logs.

use std::path::Path;

use orch_core::ByteCount;

/// What an unprivileged process may still write below this folder; `None` where the system does not tell.
#[cfg(unix)]
pub fn free_space(folder: &Path) -> Option<ByteCount> {
    let stats = nix::sys::statvfs::statvfs(folder).ok()?;
    // The types of both counts differ between systems.
    #[allow(clippy::useless_conversion, reason = "needed where the fields are 32 bits wide")]
    let bytes = u64::from(stats.blocks_available()).saturating_mul(u64::from(stats.fragment_size()));
    Some(ByteCount(bytes))
}

/// See above.
#[cfg(not(unix))]
pub fn free_space(_: &Path) -> Option<ByteCount> {
    None
}
