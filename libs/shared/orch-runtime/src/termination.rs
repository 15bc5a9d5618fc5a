//! What tells a process to end.

use std::io;

/// Resolves when the process is asked to end, with the name of what asked: SIGTERM or SIGINT, on Windows
/// Ctrl-C, Ctrl-Break or shutdown.
///
/// From this call on, not from the first poll, the request no longer kills the process. Has to be called inside
/// a tokio runtime.
#[cfg(unix)]
pub fn termination() -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// See above.
#[cfg(windows)]
pub fn termination() -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::windows;
    let mut interrupt = windows::ctrl_c()?;
    let mut stop = windows::ctrl_break()?;
    let mut shutdown = windows::ctrl_shutdown()?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = stop.recv() => "Ctrl-Break",
            _ = shutdown.recv() => "shutdown",
        }
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_before_the_first_poll_is_not_lost() {
        let asked = termination().unwrap();
        raise(Signal::SIGTERM).unwrap();
        let by = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("the signal arrives");
        assert_eq!(by, "SIGTERM");
    }
}
