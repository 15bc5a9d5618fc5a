//! Waiting: one small runtime where a command talks to the network, and the end by Ctrl-C.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use orch_core::{ExitCode, Failure};
use tokio::runtime::{Builder, Runtime};

use crate::ending::{CommandResult, Ended};

/// How often what is watched is looked at again.
const WATCH_PACE: Duration = Duration::from_secs(1);

/// Runs one future to its end on this thread.
pub(crate) fn block_on<T, E: From<Failure>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    runtime()?.block_on(future)
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::General, format!("cannot start a runtime: {error}")))
}

/// Looks again and again, `pace` apart, until the user presses Ctrl-C (130), or `look` says that all is seen.
/// `look` runs outside the runtime, so that it may wait for something itself.
pub(crate) fn repeat(pace: Duration, mut look: impl FnMut() -> Result<bool, Ended>) -> CommandResult {
    let runtime = runtime()?;
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        if look()? {
            return Ok(());
        }
        let pause = async {
            tokio::select! {
                _ = &mut interrupted => true,
                () = tokio::time::sleep(pace) => false,
            }
        };
        if runtime.block_on(pause) {
            return Err(Ended::Told(ExitCode::Interrupted));
        }
    }
}

/// Looks again and again until what is looked for is so, at most so long. Whether it came to be so.
pub(crate) fn wait_up_to(
    limit: Duration,
    mut look: impl FnMut() -> Result<bool, Failure>,
) -> Result<bool, Ended> {
    const PACE: Duration = Duration::from_millis(50);
    let end = Instant::now() + limit;
    let mut came = false;
    repeat(PACE, || {
        came = look()?;
        Ok(came || Instant::now() >= end)
    })?;
    Ok(came)
}

/// From here on Ctrl-C, SIGTERM and a closed terminal end the program with 130. What was begun is safe to be cut: locks end with their
/// holder, an engine that was started belongs to its shim, and tools are ended with all that they started.
pub(crate) fn exit_on_interrupt() {
    std::thread::spawn(|| {
        if block_on(asked_to_end()).is_ok() {
            engine_process::end_running_tools();
            std::process::exit(i32::from(ExitCode::Interrupted.number()));
        }
    });
}

#[cfg(unix)]
async fn asked_to_end() -> Result<(), Failure> {
    orch_runtime::termination(engine_process::outlives_terminal()).map_err(|_| unheard())?.await;
    Ok(())
}

#[cfg(not(unix))]
async fn asked_to_end() -> Result<(), Failure> {
    tokio::signal::ctrl_c().await.map_err(|_| unheard())
}

/// Without a handler the system ends the program at Ctrl-C, which is as good.
fn unheard() -> Failure {
    Failure::new(ExitCode::General, "cannot listen for Ctrl-C")
}

/// Shows something once, or each second until Ctrl-C.
pub(crate) fn watch(watching: bool, mut show: impl FnMut() -> CommandResult) -> CommandResult {
    if !watching {
        return show();
    }
    repeat(WATCH_PACE, || match show() {
        // A bad state is what somebody may be waiting to see change.
        Ok(()) | Err(Ended::Told(_)) => Ok(false),
        Err(ended) => Err(ended),
    })
}
