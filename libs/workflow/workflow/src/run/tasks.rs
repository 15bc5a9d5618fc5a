//! What happens outside the driver: one attempt as a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;
use workflow_spec::FailureKind;

use super::driver::{Driver, Heard};
use super::nodes::{NodeRef, State};
use super::results::Keeper;
use crate::steps::{Action, Attempt};
use crate::store::{Leader, StoreError};
use crate::{CallFailure, Entry};

/// A task that starts when the journal holds everything so far.
pub(super) struct Launch {
    pub(super) node: NodeRef,
    pub(super) task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A result that is stored.
pub(super) struct Made {
    pub(super) entry: Arc<Entry>,
    /// Whether other jobs find it.
    pub(super) is_shared: bool,
}

/// Everything that one attempt is made with.
pub(super) struct Task {
    pub(super) node: NodeRef,
    pub(super) action: Arc<dyn Action>,
    pub(super) attempt: Attempt,
    pub(super) limit: Duration,
    /// The effect waits until the disk holds that it was begun.
    pub(super) on_disk: Option<oneshot::Receiver<()>>,
    pub(super) keeper: Keeper,
    /// Others wait for the same answer.
    pub(super) leader: Option<Leader>,
    pub(super) tell: UnboundedSender<Heard>,
}

impl Task {
    pub(super) async fn run(self) {
        let teller = Teller { node: self.node, attempt: self.attempt.number, tell: Some(self.tell) };
        if let Some(on_disk) = self.on_disk
            && on_disk.await.is_err()
        {
            // The driver has ended, and with it the run.
            return;
        }
        let result = make(self.action, self.attempt, self.limit, self.keeper).await;
        if let (Some(leader), Ok(made)) = (self.leader, &result)
            && made.is_shared
        {
            leader.bring(made.entry.clone());
        }
        teller.tell(result);
    }
}

async fn make(
    action: Arc<dyn Action>,
    attempt: Attempt,
    limit: Duration,
    keeper: Keeper,
) -> Result<Box<Made>, CallFailure> {
    let began = Instant::now();
    let performed = tokio::time::timeout(limit, action.perform(attempt)).await;
    let performed = performed.map_err(|_elapsed| {
        let message = format!("no end within {} s", limit.as_secs_f64());
        CallFailure::new(FailureKind::Timeout, message)
    })??;
    let duration = began.elapsed();
    let kept = tokio::task::spawn_blocking(move || keeper.keep(performed, duration)).await;
    match kept {
        Ok(Ok(made)) => Ok(Box::new(made)),
        Ok(Err(error)) => Err(CallFailure::new(FailureKind::Internal, chain(&error))),
        Err(_panicked) => Err(broken()),
    }
}

fn chain(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn broken() -> CallFailure {
    CallFailure::new(FailureKind::Internal, "the step ended without a result: a fault of this program")
}

/// Tells of an attempt's end, also of one that panicked.
struct Teller {
    node: NodeRef,
    attempt: u32,
    tell: Option<UnboundedSender<Heard>>,
}

impl Teller {
    fn tell(mut self, result: Result<Box<Made>, CallFailure>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Box<Made>, CallFailure>) {
        if let Some(tell) = self.tell.take() {
            // A driver that has ended does not want to know.
            let _driver_is_gone = tell.send(Heard::Attempted(self.node, self.attempt, result));
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.send(Err(broken()));
    }
}

impl Driver {
    /// Starts the tasks that wait for the journal.
    pub(super) fn launch(&mut self) {
        for launch in self.launches.drain(..) {
            let task = self.tasks.spawn(launch.task);
            match &mut self.scopes.node_mut(launch.node).state {
                State::Running(work) | State::Following(work) => work.task = Some(task),
                _ => task.abort(),
            }
        }
    }
}
