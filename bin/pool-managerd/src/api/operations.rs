//! Long steps: asked for once, looked at until they end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use orch_api::{Operation, OperationState};
use orch_core::{ExitCode, Failure};
use orch_runtime::Tasks;
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::ApiState;
use super::answers::{Refusal, valid};

/// Finished operations are kept for a look back; older ones are forgotten.
const KEPT: usize = 1024;
/// A look waits no longer than this for the end.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// What is to become of a step that finds everything as it was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It fails.
    Change,
    /// It is done.
    Nothing,
}

impl Expected {
    /// As a request words it.
    pub const fn of(expect_change: bool) -> Self {
        if expect_change { Expected::Change } else { Expected::Nothing }
    }

    /// Whether a failure only says that it was so before.
    fn takes(self, failure: &Failure) -> bool {
        let so_already =
            matches!(failure.exit, ExitCode::AlreadyRunning | ExitCode::Starting | ExitCode::NotRunning);
        self == Expected::Nothing && so_already
    }
}

/// The operations of this daemon's life.
pub struct Operations {
    tasks: Tasks,
    known: Mutex<VecDeque<(Uuid, watch::Receiver<Operation>)>>,
}

impl Operations {
    pub fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), known: Mutex::default() }
    }

    /// Begins a step; it goes on whether or not anybody looks.
    pub fn begin<F>(&self, kind: &str, instance: &str, expected: Expected, step: F) -> Operation
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let operation = Operation {
            id: Uuid::now_v7(),
            kind: kind.to_owned(),
            instance: instance.to_owned(),
            state: OperationState::Running,
            error: None,
            already: None,
        };
        let (sender, receiver) = watch::channel(operation.clone());
        self.remember(operation.id, receiver);
        self.tasks.spawn("operation", async move {
            let result = step.await;
            sender.send_modify(|operation| match result {
                Ok(()) => operation.state = OperationState::Done,
                Err(failure) if expected.takes(&failure) => {
                    operation.state = OperationState::Done;
                    operation.already = Some(failure);
                }
                Err(failure) => {
                    operation.state = OperationState::Failed;
                    operation.error = Some(failure);
                }
            });
        });
        operation
    }

    fn remember(&self, id: Uuid, receiver: watch::Receiver<Operation>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            // The oldest finished one goes; one under way is never forgotten.
            if let Some(oldest) = known.iter().position(|(_, operation)| operation.borrow().is_over()) {
                known.remove(oldest);
            } else {
                tracing::warn!("more than {KEPT} operations are under way");
            }
        }
        known.push_back((id, receiver));
    }

    fn find(&self, id: Uuid) -> Option<watch::Receiver<Operation>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|(known, _)| *known == id).map(|(_, operation)| operation.clone())
    }
}

#[derive(Deserialize)]
pub(super) struct Look {
    /// Milliseconds to wait for the end, at most 60,000.
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn show(
    State(state): State<ApiState>,
    id: Result<Path<Uuid>, PathRejection>,
    look: Result<Query<Look>, QueryRejection>,
) -> Result<Json<Operation>, Refusal> {
    let (Path(id), Query(look)) = (valid(id)?, valid(look)?);
    let operations: &Arc<Operations> = &state.operations;
    let missing = || Failure::new(ExitCode::InstanceNotFound, format!("no operation {id} is known"));
    let mut operation = operations.find(id).ok_or_else(missing)?;
    let wait = Duration::from_millis(look.wait_ms).min(LONGEST_LOOK);
    // A sender that is gone, or a limit that passes, shows the state as it is.
    let _ = tokio::time::timeout(wait, operation.wait_for(Operation::is_over)).await;
    let shown = operation.borrow().clone();
    Ok(Json(shown))
}
