//! Bounds on what one request may take.

use std::time::Duration;

use orch_runtime::FullPolicy;

/// The defaults are those of the settings' documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A larger request body is refused (`limits.body_mb`).
    pub body_bytes: u64,
    /// Longest pause between two pieces of a request body.
    pub body_idle: Duration,
    /// Longest wait for an engine to accept a connection.
    pub connect: Duration,
    /// Longest wait for the first byte of an answer. As long as the engine's own limit, because an answer
    /// that is not streamed has its first byte when all of it is generated.
    pub answer: Duration,
    /// Longest wait between two tokens of a stream (`limits.token_idle_s`).
    pub token_idle: Duration,
    /// How many more replicas are tried before the first byte (`limits.retries`).
    pub retries: u32,
    /// How many requests may wait for one route (`limits.queue`).
    pub queue: usize,
    /// What happens to one more (`limits.full_policy`).
    pub full_policy: FullPolicy,
    /// Longest wait in a queue of a request without a deadline of its own (`limits.queue_deadline_s`).
    pub queue_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 * 1024 * 1024,
            body_idle: Duration::from_secs(30),
            connect: Duration::from_secs(2),
            answer: Duration::from_hours(1),
            token_idle: Duration::from_mins(2),
            retries: 2,
            queue: 128,
            full_policy: FullPolicy::Reject,
            queue_deadline: Duration::from_mins(5),
        }
    }
}
