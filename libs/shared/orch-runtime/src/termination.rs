//! What tells a process to end.

use std::io;

/// Resolves when the process is asked to end, with the name of what asked: SIGTERM, SIGINT or the end of the terminal
/// (SIGHUP); on Windows Ctrl-C, Ctrl-Break, a closed console, shutdown, or a request on the pipe of
/// [`orch_core::end_request_pipe`]. With `outlives_terminal` the end of a terminal asks nothing.
///
/// From this call on, not from the first poll, the request no longer kills the process. Has to be called inside
/// a tokio runtime.
#[cfg(unix)]
pub fn termination(outlives_terminal: bool) -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let insisted = insistence()?;
    let mut hangup = if outlives_terminal { None } else { Some(signal(SignalKind::hangup())?) };
    let hung_up = async move {
        match &mut hangup {
            Some(hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    Ok(async move {
        tokio::select! {
            asked = insisted => asked,
            _ = hung_up => "SIGHUP",
        }
    })
}

/// The same for a process that was asked already. The end of a terminal is told of more than once, by the system and by
/// a shell: whoever insists on an end does so otherwise.
#[cfg(unix)]
pub fn insistence() -> io::Result<impl Future<Output = &'static str> + Send> {
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
pub fn insistence() -> io::Result<impl Future<Output = &'static str> + Send> {
    termination(false)
}

/// See above. The window of a console takes its programs along.
#[cfg(windows)]
pub fn termination(_outlives_terminal: bool) -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::windows;
    let mut interrupt = windows::ctrl_c()?;
    let mut stop = windows::ctrl_break()?;
    let mut close = windows::ctrl_close()?;
    let mut shutdown = windows::ctrl_shutdown()?;
    let asked = requests::listen();
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = stop.recv() => "Ctrl-Break",
            _ = close.recv() => "console closed",
            _ = shutdown.recv() => "shutdown",
            () = asked => "request to end",
        }
    })
}

#[cfg(windows)]
mod requests {
    //! The pipe that stands in for SIGTERM.

    use std::io;

    use orch_core::{END_REQUEST, end_request_pipe};
    use tokio::io::AsyncReadExt;
    use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

    /// Resolves when somebody asks. Without the pipe nobody can; the daemon is then ended the hard way, as by
    /// `kill -9`, which loses nothing but the drain.
    pub(super) fn listen() -> impl Future<Output = ()> + Send {
        let pipe = open();
        async move {
            if let Err(error) = hear(pipe).await {
                tracing::warn!(%error, "requests to end cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    }

    fn open() -> io::Result<NamedPipeServer> {
        ServerOptions::new()
            .first_pipe_instance(true)
            .access_outbound(false)
            .reject_remote_clients(true)
            .create(end_request_pipe(std::process::id()))
    }

    async fn hear(pipe: io::Result<NamedPipeServer>) -> io::Result<()> {
        let mut pipe = pipe?;
        loop {
            pipe.connect().await?;
            let mut said = [0; END_REQUEST.len()];
            if pipe.read_exact(&mut said).await.is_ok() && said == END_REQUEST {
                return Ok(());
            }
            pipe.disconnect()?;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_before_the_first_poll_is_not_lost() {
        for (signal, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGHUP, "SIGHUP")] {
            let asked = termination(false).unwrap();
            raise(signal).unwrap();
            let by = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("the signal arrives");
            assert_eq!(by, name);
        }
    }
}
