//! The one shape in which a refusal reaches a client.

use std::time::Duration;

use orch_core::{ErrorCode, Failure};

/// Why a request cannot be served, before it is put into the caller's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: ErrorCode,
    /// One sentence for people; never holds a secret.
    pub message: String,
    /// The request field at fault, where there is one.
    pub param: Option<&'static str>,
    /// When a retry has a chance. Shown only for codes that are retriable at all.
    pub retry_after: Option<Duration>,
    pub node_id: Option<String>,
    pub pool_id: Option<String>,
    /// The HTTP status, where it is not the usual one of the code.
    pub status: Option<u16>,
    /// For a prompt that is too long: by how much. Boxed, so that the rare case makes no other one larger.
    pub context: Option<Box<ContextNumbers>>,
}

/// A prompt and the slot that it does not fit, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextNumbers {
    pub prompt_tokens: u64,
    pub slot_context: u64,
}

impl Problem {
    /// How long a client is asked to wait when nothing better is known.
    pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            node_id: None,
            pool_id: None,
            status: None,
            context: None,
        }
    }

    /// The same problem, blamed on a request field.
    #[must_use]
    pub fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// The same problem with a time after which a retry has a chance.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same problem, located at a pool of a node.
    #[must_use]
    pub fn at(mut self, node_id: &str, pool_id: &str) -> Self {
        self.node_id = Some(node_id.to_owned());
        self.pool_id = Some(pool_id.to_owned());
        self
    }

    /// The same problem under another status than is usual for its code.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The HTTP status of an answer that has not begun yet.
    pub fn http_status(&self) -> u16 {
        self.status.unwrap_or(self.code.http_status())
    }

    /// The wait to tell the client: some time for retriable codes, nothing for all others.
    pub fn wait(&self) -> Option<Duration> {
        self.code.retriable().then(|| self.retry_after.unwrap_or(Self::DEFAULT_RETRY_AFTER))
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let message = match failure.hint {
            Some(hint) => format!("{}; {hint}", failure.message),
            None => failure.message,
        };
        Problem::new(ErrorCode::from_exit(failure.exit), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orch_core::ExitCode;

    #[test]
    fn only_retriable_problems_name_a_wait() {
        let wait = Duration::from_secs(5);
        let stopped = Problem::new(ErrorCode::ModelNotAvailable, "x").retry_after(wait);
        assert_eq!(stopped.wait(), Some(wait));
        assert_eq!(Problem::new(ErrorCode::ModelNotFound, "x").retry_after(wait).wait(), None);
    }

    #[test]
    fn the_hint_of_a_failure_reaches_the_client() {
        let failure =
            Failure::new(ExitCode::InstanceNotFound, "no instance \"a\"").hint("see `llama-orch ps`");
        let problem = Problem::from(failure);
        assert_eq!(problem.code, ErrorCode::NotFound);
        assert_eq!(problem.message, "no instance \"a\"; see `llama-orch ps`");
    }
}
