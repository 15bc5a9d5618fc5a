//! Learning of an exit at once instead of at the next poll.

use std::time::Duration;

use crate::identity::{StartMark, start_mark};

/// Where the system has no handle to wait on, or refuses one.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Resolves when this very process has ended (an unreaped one has). A pid that was reused counts as ended.
pub async fn wait_for_exit(pid: u32, started_at: &StartMark) {
    #[cfg(any(target_os = "linux", windows))]
    if wait_by_handle(pid, started_at).await.is_ok() {
        return;
    }
    let mut interval = tokio::time::interval(POLL_INTERVAL);
    while start_mark(pid).as_ref() == Some(started_at) {
        interval.tick().await;
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "registering a descriptor promises that it stays open")]
async fn wait_by_handle(pid: u32, started_at: &StartMark) -> std::io::Result<()> {
    use crate::sys::ProcessHandle;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    let Some(handle) = ProcessHandle::open(pid)? else { return Ok(()) };
    // Looked at after opening: from here on the handle cannot come to mean another process.
    if start_mark(pid).as_ref() != Some(started_at) {
        return Ok(());
    }
    // SAFETY: the handle owns its descriptor and always lends out that same one, so it stays open and unchanged
    // for as long as it is registered.
    let watched = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
    watched.readable().await?.retain_ready();
    Ok(())
}

#[cfg(windows)]
async fn wait_by_handle(pid: u32, started_at: &StartMark) -> std::io::Result<()> {
    use crate::sys::ProcessHandle;

    match ProcessHandle::open(pid)? {
        Some(handle) if handle.start_mark() == *started_at => crate::sys::signalled(&handle).await,
        _ => Ok(()),
    }
}
