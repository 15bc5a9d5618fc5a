//! Ctrl-C while a job runs: the first ends it politely, the second at once. A closed terminal ends it politely, unless
//! the command was started to outlive it.

use std::convert::Infallible;
use std::sync::Arc;

use orch_core::{ExitCode, Failure};
use tokio_util::sync::CancellationToken;

use crate::live::Show;

/// Listens from this call on; the future never ends by itself.
pub(super) fn listen(
    cancel: &CancellationToken,
    show: &Arc<Show>,
) -> Result<impl Future<Output = Infallible> + use<>, Failure> {
    let first =
        orch_runtime::termination(engine_process::outlives_terminal()).map_err(|error| unheard(&error))?;
    let (cancel, show) = (cancel.clone(), show.clone());
    Ok(async move {
        first.await;
        // Listened for before anybody is told that there is a second one.
        let second = orch_runtime::insistence();
        cancel.cancel();
        show.notice("cancelling: steps under way are ended; Ctrl-C once more ends at once");
        match second {
            Ok(second) => drop(second.await),
            Err(_) => std::future::pending::<()>().await,
        }
        show.finish();
        engine_process::end_running_tools();
        std::process::exit(i32::from(ExitCode::Interrupted.number()))
    })
}

fn unheard(error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::General, format!("cannot listen for Ctrl-C: {error}"))
}
