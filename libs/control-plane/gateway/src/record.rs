//! What is written down of a request when it is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llm_adapters::{Dialect, Usage};
use orch_core::{ErrorCode, UnixMillis};

use crate::caller::Caller;
use crate::table::ReplicaKey;

/// How a request ended. Every request ends in exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The engine's whole answer went through. Errors are among them only where engine and client speak the same
    /// dialect, or the client asked for the engine as it is.
    Done,
    /// No answer began, or the engine's was an error; the client was told why.
    Refused,
    /// An answer began and broke off; the client was told why where its dialect can.
    Broken,
    /// The client went away.
    Canceled,
}

impl Outcome {
    /// The word in the request log.
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Broken => "broken",
            Outcome::Canceled => "canceled",
        }
    }
}

/// One request of the data plane, from its arrival to its end.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub id: String,
    /// When it arrived.
    pub at: UnixMillis,
    /// The path that it asked for, as the engine knows it.
    pub endpoint: String,
    pub dialect: Dialect,
    pub caller: Caller,
    /// The name that it asked for.
    pub model: Option<String>,
    /// Whether the caller asked for a stream.
    pub streamed: bool,
    /// The replica that had it last; `None` if none ever did.
    pub replica: Option<ReplicaKey>,
    /// How many replicas had it.
    pub attempts: u32,
    pub outcome: Outcome,
    /// The HTTP status that the client got or would have got.
    pub status: u16,
    /// Why it did not end well.
    pub code: Option<ErrorCode>,
    /// From its arrival to its first hand-over to a replica.
    pub queued: Option<Duration>,
    /// From its arrival to the first token of a stream.
    pub first_token: Option<Duration>,
    pub total: Duration,
    pub usage: Usage,
    /// The request's body; only where bodies are captured.
    pub body: Option<Bytes>,
    /// What the engine answered, up to a length; only where bodies are captured.
    pub answer: Option<Bytes>,
}

/// Where records go. Must never wait: it is called on the way of a request.
pub trait RequestLog: Send + Sync {
    /// Takes note of a request that is over.
    fn record(&self, record: RequestRecord);

    /// Whether records are to hold bodies.
    fn captures_bodies(&self) -> bool {
        false
    }
}

/// Where the gateway's records go: nowhere, unless somebody wants them.
pub(crate) type Log = Option<Arc<dyn RequestLog>>;
