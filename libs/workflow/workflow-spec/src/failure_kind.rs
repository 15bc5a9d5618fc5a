//! Why a step failed, as a closed set that retries, fallbacks and readers of the journal decide by.

use serde::{Deserialize, Serialize};

/// The kinds of failure of a step. The kind comes from what happened, never from a message's text.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No answer, or no end of one, within the attempt's limit.
    Timeout,
    /// No connection, or one that broke before the answer was whole.
    Connect,
    /// The provider asks to come back later (429).
    RateLimit,
    /// The provider has no room now (503, 529 and other server errors).
    Overloaded,
    /// Key missing, unknown or not allowed to do this.
    Auth,
    /// The answer does not fit the step's schema, also after the allowed repairs.
    Schema,
    /// The request or a value of the workflow is not usable: a template, a path, a refused parameter.
    Validation,
    /// A command or a called service said no.
    Tool,
    /// The job's budget is used up.
    Budget,
    /// Somebody or something asked the step to end.
    Cancelled,
    /// The provider failed so often that it is not asked for a while.
    CircuitOpen,
    /// A fault of this program or of its disk.
    Internal,
}

impl FailureKind {
    /// All kinds, in the order in which they are documented.
    pub const ALL: [FailureKind; 12] = [
        Self::Timeout,
        Self::Connect,
        Self::RateLimit,
        Self::Overloaded,
        Self::Auth,
        Self::Schema,
        Self::Validation,
        Self::Tool,
        Self::Budget,
        Self::Cancelled,
        Self::CircuitOpen,
        Self::Internal,
    ];

    /// The word in specs and journals.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::RateLimit => "rate_limit",
            Self::Overloaded => "overloaded",
            Self::Auth => "auth",
            Self::Schema => "schema",
            Self::Validation => "validation",
            Self::Tool => "tool",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
            Self::CircuitOpen => "circuit_open",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
