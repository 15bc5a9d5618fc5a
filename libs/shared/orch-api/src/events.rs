//! What happened.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One entry of the home's history; the names of the fields are those of `events --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows with every event.
    pub id: i64,
    /// When, RFC 3339.
    pub ts: String,
    /// The instance concerned; none for the daemon's own.
    pub instance: Option<String>,
    /// `debug`, `info`, `warning` or `error`.
    pub level: String,
    /// One of the documented types.
    pub event_type: String,
    /// One sentence for people.
    pub message: String,
    /// Details, by type.
    pub meta: Option<Value>,
}
