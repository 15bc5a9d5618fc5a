//! What another server's error answer means to our client, who may speak another dialect.

use orch_core::ErrorCode;
use serde_json::Value;

use crate::{ContextNumbers, Problem};

/// Longest message of the other side's that is repeated.
const SHOWN: usize = 2_000;

/// The problem that an error answer of an engine, or of a provider, tells of; in llama-server's, OpenAI's,
/// Anthropic's or Ollama's shape.
pub fn engine_problem(status: u16, body: &[u8]) -> Problem {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let message = error["message"].as_str().or(error.as_str()).or(body["message"].as_str());
    let message: String = match message {
        Some(message) => message.chars().take(SHOWN).collect(),
        None => format!("the engine answered with status {status} and no reason"),
    };
    let words = [&error["type"], &error["code"]].map(|word| word.as_str().unwrap_or_default());
    if words.iter().any(|word| matches!(*word, "exceed_context_size_error" | "context_length_exceeded")) {
        let numbers = error["n_prompt_tokens"].as_u64().zip(error["n_ctx"].as_u64());
        let mut problem = Problem::new(ErrorCode::ContextExceeded, message);
        problem.context = numbers
            .map(|(prompt_tokens, slot_context)| Box::new(ContextNumbers { prompt_tokens, slot_context }));
        return problem;
    }
    match code(status) {
        Some(code) => Problem::new(code, message),
        // What the engine was not started for: asking again is of no use, and no other status says so.
        None => Problem::new(ErrorCode::InvalidParams, message).status(status),
    }
}

/// Our word for a status. A key that the other side does not take is ours and not the client's.
const fn code(status: u16) -> Option<ErrorCode> {
    Some(match status {
        400 | 422 => ErrorCode::InvalidParams,
        401 | 403 => ErrorCode::PoolUnavailable,
        404 => ErrorCode::NotFound,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::AdmissionReject,
        503 | 529 => ErrorCode::ModelNotAvailable,
        504 => ErrorCode::DecodeTimeout,
        500 | 502 | 505..=599 => ErrorCode::WorkerReset,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_understood_in_every_shape_they_come_in() {
        for (status, body, code, message) in [
            (
                400,
                json!({"error": {"code": 400, "message": "bad", "type": "invalid_request_error"}}),
                "INVALID_PARAMS",
                "bad",
            ),
            (
                529,
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "full"}}),
                "MODEL_NOT_AVAILABLE",
                "full",
            ),
            (404, json!({"error": "model 'x' not found"}), "NOT_FOUND", "model 'x' not found"),
            (429, json!({"message": "slow down"}), "ADMISSION_REJECT", "slow down"),
            (500, json!(null), "WORKER_RESET", "the engine answered with status 500 and no reason"),
        ] {
            let problem = engine_problem(status, body.to_string().as_bytes());
            assert_eq!((problem.code.label(), problem.message.as_str()), (code, message), "{body}");
        }
        assert_eq!(engine_problem(502, b"<html>").code, ErrorCode::WorkerReset);
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_with_its_numbers() {
        let body = json!({"error": {"type": "exceed_context_size_error", "message": "m", "n_prompt_tokens": 9, "n_ctx": 4}});
        let problem = engine_problem(400, body.to_string().as_bytes());
        let numbers = Box::new(ContextNumbers { prompt_tokens: 9, slot_context: 4 });
        assert_eq!((problem.code, problem.context), (ErrorCode::ContextExceeded, Some(numbers)));
    }

    #[test]
    fn what_an_engine_was_not_started_for_keeps_its_status() {
        let problem = engine_problem(501, b"{\"error\":{\"message\":\"no embeddings\"}}");
        assert_eq!((problem.http_status(), problem.code.retriable()), (501, false));
    }
}
