//! Long steps: asked for once, looked at until they end.

use orch_core::Failure;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::shape::failure_schema;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Accepted, not begun.
    Pending,
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended with `error`.
    Failed,
}

/// One long step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Under this it can be looked at.
    pub id: Uuid,
    /// `start`, `stop`, `restart`, `remove`, `drain` or `reload`.
    pub kind: String,
    /// The instance (or node) that it is about.
    pub instance: String,
    /// How far it is.
    pub state: OperationState,
    /// Why it failed.
    #[schema(schema_with = failure_schema)]
    pub error: Option<Failure>,
    /// It was so before, and nothing was done: what a command would have told.
    #[serde(default)]
    #[schema(schema_with = failure_schema)]
    pub already: Option<Failure>,
}

impl Operation {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.state, OperationState::Done | OperationState::Failed)
    }
}
