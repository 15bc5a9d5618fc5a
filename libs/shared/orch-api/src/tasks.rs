//! Native tasks: a generation that is submitted, watched and cancelled.

use orch_core::Priority;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ErrorBody;
use crate::shape::priority_schema;

/// Where a task wants to go, by ids of pools or nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskPlacement {
    /// Only there.
    pub pin: Vec<String>,
    /// There, if that is possible at all.
    pub prefer: Vec<String>,
    /// Never there.
    pub avoid: Vec<String>,
}

/// What is to be generated: from a `prompt` or from `messages`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// An instance, an alias or a route.
    pub model: String,
    /// A text to go on with.
    #[serde(default)]
    pub prompt: Option<String>,
    /// A conversation, as `/v1/chat/completions` takes it.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub messages: Option<Vec<Value>>,
    /// No more tokens than these.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// `interactive` when not given.
    #[serde(default)]
    #[schema(schema_with = priority_schema)]
    pub priority: Option<Priority>,
    /// Milliseconds within which it has to start.
    #[serde(default)]
    pub deadline_ms: Option<i64>,
    /// Tasks of one session go to the same replica where that is possible.
    #[serde(default)]
    pub session_id: Option<String>,
    /// The same seed gives the same text.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Where it may go.
    #[serde(default)]
    pub placement: Option<TaskPlacement>,
}

/// A task that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskAccepted {
    /// Under this it can be looked at; also the request id in logs.
    pub task_id: Uuid,
    /// How many are served before it; `null` = not known.
    pub queue_position: Option<u64>,
    /// Milliseconds until it starts, from measured service times; `null` = not measured.
    pub predicted_start_ms: Option<u64>,
    /// Where its events are.
    pub events_url: String,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Waits for a slot, or for its model.
    Queued,
    /// Generates.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error, cancelled ones included.
    Failed,
}

/// A task, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Its id.
    pub task_id: Uuid,
    /// What it asked for.
    pub model: String,
    /// How far it is.
    pub state: TaskState,
    /// When it was taken, RFC 3339.
    pub created_at: String,
    /// How many pieces of text have come.
    pub tokens_out: u64,
    /// Why it failed.
    pub error: Option<ErrorBody>,
}

/// What happens to a task. `queued` comes first, then exactly one of `end` and `error` comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "lowercase")]
pub enum TaskEvent {
    /// It was taken.
    Queued(TaskQueued),
    /// An engine works on it.
    Started {},
    /// A piece of text.
    Token(TaskToken),
    /// How it goes, now and then.
    Metrics(TaskMetrics),
    /// It ended well.
    End(TaskEnd),
    /// It ended otherwise.
    Error(ErrorBody),
}

impl TaskEvent {
    /// The name of the event in the stream.
    pub const fn name(&self) -> &'static str {
        match self {
            TaskEvent::Queued(_) => "queued",
            TaskEvent::Started {} => "started",
            TaskEvent::Token(_) => "token",
            TaskEvent::Metrics(_) => "metrics",
            TaskEvent::End(_) => "end",
            TaskEvent::Error(_) => "error",
        }
    }

    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        matches!(self, TaskEvent::End(_) | TaskEvent::Error(_))
    }
}

/// Data of `queued`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskQueued {
    /// The task.
    pub task_id: Uuid,
}

/// Data of `token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskToken {
    /// The text.
    pub t: String,
    /// Its number, from 0.
    pub i: u64,
}

/// Data of `metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskMetrics {
    /// How many wait before it; 0 once it runs.
    pub queue_depth: u64,
    /// How fast it generates; 0 until it runs.
    pub tokens_per_second: f64,
}

/// Data of `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskEnd {
    /// Tokens that the engine counted.
    pub tokens_out: u64,
    /// Milliseconds of generating.
    pub decode_ms: u64,
}
