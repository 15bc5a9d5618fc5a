//! The closed set of error codes that the HTTP interface speaks.

use crate::ExitCode;

macro_rules! error_codes {
    ($($variant:ident, $label:literal, $status:literal, $retriable:literal, $openai:literal, $anthropic:literal, $exit:ident, $meaning:literal;)+) => {
        /// Why a request was refused or ended badly. One code decides the HTTP status, the error type in the
        /// caller's dialect, whether a retry can help, the metric label and the exit code of a command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)+];

            /// The name on the wire, in logs and as a metric label.
            pub const fn label(self) -> &'static str {
                match self { $(ErrorCode::$variant => $label,)+ }
            }

            /// The code of a name, if it is one of ours.
            pub fn from_label(label: &str) -> Option<ErrorCode> {
                match label { $($label => Some(ErrorCode::$variant),)+ _ => None }
            }

            /// The HTTP status of a response that has not begun yet.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)+ }
            }

            /// Whether the same request may succeed later without a change.
            pub const fn retriable(self) -> bool {
                match self { $(ErrorCode::$variant => $retriable,)+ }
            }

            /// `error.type` in the OpenAI dialect.
            pub const fn openai_type(self) -> &'static str {
                match self { $(ErrorCode::$variant => $openai,)+ }
            }

            /// `error.type` in the Anthropic dialect.
            pub const fn anthropic_type(self) -> &'static str {
                match self { $(ErrorCode::$variant => $anthropic,)+ }
            }

            /// The exit code of a command that ended with this error.
            pub const fn exit_code(self) -> ExitCode {
                match self { $(ErrorCode::$variant => ExitCode::$exit,)+ }
            }

            /// What the code means, as a short phrase.
            pub const fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => $meaning,)+ }
            }
        }
    };
}

error_codes! {
    InvalidParams, "INVALID_PARAMS", 400, false, "invalid_request_error", "invalid_request_error", Usage, "malformed request or bad field";
    ContextExceeded, "CONTEXT_EXCEEDED", 400, false, "invalid_request_error", "invalid_request_error", Usage, "prompt over the slot's context";
    Unauthorized, "UNAUTHORIZED", 401, false, "authentication_error", "authentication_error", Unauthorized, "token missing or wrong";
    Forbidden, "FORBIDDEN", 403, false, "permission_error", "permission_error", Unauthorized, "out of scope, or a foreign Host or Origin";
    ModelNotFound, "MODEL_NOT_FOUND", 404, false, "not_found_error", "not_found_error", InstanceNotFound, "nobody knows this model";
    NotFound, "NOT_FOUND", 404, false, "not_found_error", "not_found_error", InstanceNotFound, "no such node, job, task, instance or path";
    Conflict, "CONFLICT", 409, false, "invalid_request_error", "invalid_request_error", AlreadyExists, "exists already or is in the way";
    TooLarge, "TOO_LARGE", 413, false, "invalid_request_error", "request_too_large", Usage, "body over the limit";
    ModelNotAvailable, "MODEL_NOT_AVAILABLE", 503, true, "unavailable_error", "overloaded_error", NotRunning, "known, but cannot serve now";
    AdmissionReject, "ADMISSION_REJECT", 429, true, "rate_limit_error", "rate_limit_error", Timeout, "queue full, or the deadline cannot be met";
    QueueFullDropLru, "QUEUE_FULL_DROP_LRU", 429, true, "rate_limit_error", "rate_limit_error", Timeout, "dropped from a full queue";
    RateLimited, "RATE_LIMITED", 429, true, "rate_limit_error", "rate_limit_error", Timeout, "over the key's rate or concurrency";
    BudgetExhausted, "BUDGET_EXHAUSTED", 429, false, "insufficient_quota", "rate_limit_error", Timeout, "the key's token budget is spent";
    DeadlineUnmet, "DEADLINE_UNMET", 504, false, "timeout_error", "timeout_error", Timeout, "deadline passed before dispatch";
    PoolUnready, "POOL_UNREADY", 503, true, "unavailable_error", "overloaded_error", Starting, "the pinned pool is not ready";
    PoolUnavailable, "POOL_UNAVAILABLE", 503, true, "unavailable_error", "overloaded_error", NotRunning, "no candidate pool";
    NodeUnavailable, "NODE_UNAVAILABLE", 503, true, "unavailable_error", "overloaded_error", NodeNotFound, "the node is offline";
    ProfileOff, "PROFILE_OFF", 503, false, "unavailable_error", "api_error", General, "needs the cloud profile";
    WorkerReset, "WORKER_RESET", 502, true, "server_error", "api_error", Crashed, "the engine or node died under the request";
    DecodeTimeout, "DECODE_TIMEOUT", 504, true, "timeout_error", "timeout_error", Timeout, "no token within the idle limit";
    Cancelled, "CANCELLED", 499, false, "server_error", "api_error", Interrupted, "cancelled by the client or an operator";
    Internal, "INTERNAL", 500, false, "server_error", "api_error", General, "a bug";
}

impl ErrorCode {
    /// The HTTP code under which a node-plane failure is told over `/v2`.
    pub const fn from_exit(exit: ExitCode) -> ErrorCode {
        match exit {
            ExitCode::Usage
            | ExitCode::ConfigInvalid
            | ExitCode::ConfigParse
            | ExitCode::JobSpecInvalid
            | ExitCode::ModelInvalid
            | ExitCode::ModelNotFound
            | ExitCode::EngineNotFound
            | ExitCode::EngineInvalid => ErrorCode::InvalidParams,
            ExitCode::InstanceNotFound
            | ExitCode::ConfigNotFound
            | ExitCode::JobNotFound
            | ExitCode::NodeNotFound => ErrorCode::NotFound,
            ExitCode::AlreadyExists
            | ExitCode::AlreadyRunning
            | ExitCode::NotRunning
            | ExitCode::Starting
            | ExitCode::Stopping
            | ExitCode::PortInUse
            | ExitCode::PortUnavailable
            | ExitCode::LockNotAcquired => ErrorCode::Conflict,
            ExitCode::Unauthorized => ErrorCode::Unauthorized,
            ExitCode::PermissionDenied => ErrorCode::Forbidden,
            _ => ErrorCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique() {
        let mut labels: Vec<_> = ErrorCode::ALL.iter().map(|code| code.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn only_statuses_that_mean_try_later_are_retriable() {
        for code in ErrorCode::ALL {
            if code.retriable() {
                assert!(matches!(code.http_status(), 429 | 502 | 503 | 504), "{}", code.label());
            }
        }
    }
}
