//! How a refusal looks.

use orch_core::{ErrorCode, ExitCode, Failure};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;
use crate::shape::exit_code_schema;

/// The body of every answer of `/v2` that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// One of the documented error codes, such as `NOT_FOUND`.
    pub code: String,
    /// What happened, to what: one sentence for people.
    pub message: String,
    /// What to do next, where that is known.
    #[serde(default)]
    pub hint: Option<String>,
    /// The exit code of a command that ends with this.
    #[serde(default)]
    #[schema(schema_with = exit_code_schema)]
    pub exit_code: Option<ExitCode>,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// Milliseconds after which trying again has a chance; only where `retriable`.
    pub retry_after_ms: Option<u64>,
    /// The policy that refused, where one did.
    pub policy_label: Option<String>,
    /// The node concerned, where it is one.
    pub node_id: Option<String>,
    /// The pool concerned, where it is one.
    pub pool_id: Option<String>,
    /// Everything that is wrong with a document that was sent, place by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ErrorBody {
    /// A refusal with a code of the protocol.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.label().to_owned(),
            message: message.into(),
            hint: None,
            exit_code: Some(code.exit_code()),
            retriable: code.retriable(),
            retry_after_ms: None,
            policy_label: None,
            node_id: None,
            pool_id: None,
            problems: Vec::new(),
        }
    }

    /// What the HTTP status comes from; a code of a newer server is an internal error to this one.
    pub fn error_code(&self) -> ErrorCode {
        ErrorCode::from_label(&self.code).unwrap_or(ErrorCode::Internal)
    }

    /// The same, as a command meets it: the exit code is the server's, or else that of the code.
    pub fn into_failure(self) -> Failure {
        let exit = self.exit_code.unwrap_or_else(|| self.error_code().exit_code());
        Failure { exit, message: self.message, hint: self.hint }
    }
}

impl From<Failure> for ErrorBody {
    fn from(failure: Failure) -> Self {
        let Failure { exit, message, hint } = failure;
        Self { hint, exit_code: Some(exit), ..Self::new(ErrorCode::from_exit(exit), message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_way_over_http_with_its_exit_code() {
        let failure = Failure::new(ExitCode::PortInUse, "port 8001 is taken").hint("stop it");
        let text = serde_json::to_string(&ErrorBody::from(failure.clone())).unwrap();
        let told: ErrorBody = serde_json::from_str(&text).unwrap();
        assert_eq!(told.error_code(), ErrorCode::Conflict);
        assert_eq!(told.into_failure(), failure);
    }

    #[test]
    fn a_refusal_without_an_exit_code_gets_that_of_its_code() {
        let text = r#"{"code":"NODE_UNAVAILABLE","message":"gone","retriable":true,"retry_after_ms":1000,
            "policy_label":null,"node_id":"n","pool_id":null}"#;
        let told: ErrorBody = serde_json::from_str(text).unwrap();
        assert_eq!(told.into_failure().exit, ExitCode::NodeNotFound);
    }
}
