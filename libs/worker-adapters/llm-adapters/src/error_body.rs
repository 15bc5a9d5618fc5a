//! A problem in the words of each dialect: as a whole answer, and as the last event of a stream.

use bytes::Bytes;
use orch_core::ErrorCode;
use serde_json::{Value, json};

use crate::{Dialect, Problem};

/// The body of an error answer.
pub fn error_body(dialect: Dialect, problem: &Problem, request_id: &str) -> Bytes {
    Bytes::from(error_value(dialect, problem, request_id).to_string())
}

/// The last event of a stream whose answer had begun when it failed.
pub fn terminal_event(dialect: Dialect, problem: &Problem, request_id: &str) -> Bytes {
    let value = match dialect {
        Dialect::OpenAiResponses => responses_event(problem),
        _ => error_value(dialect, problem, request_id),
    };
    Bytes::from(match dialect {
        Dialect::OpenAi | Dialect::LlamaCpp => format!("data: {value}\n\n"),
        Dialect::Anthropic | Dialect::OpenAiResponses | Dialect::Native => {
            format!("event: error\ndata: {value}\n\n")
        }
        Dialect::Ollama => format!("{value}\n"),
    })
}

fn error_value(dialect: Dialect, problem: &Problem, request_id: &str) -> Value {
    let mut value = error_shape(dialect, problem, request_id);
    // Anthropic and Ollama have no place for numbers; the message holds them there.
    if let (Some(numbers), Some(error)) =
        (&problem.context, value.get_mut("error").and_then(Value::as_object_mut))
        && dialect != Dialect::Anthropic
    {
        error.insert("n_prompt_tokens".to_owned(), numbers.prompt_tokens.into());
        error.insert("n_ctx".to_owned(), numbers.slot_context.into());
    }
    value
}

fn error_shape(dialect: Dialect, problem: &Problem, request_id: &str) -> Value {
    match dialect {
        Dialect::OpenAi | Dialect::OpenAiResponses => json!({"error": {
            "message": problem.message,
            "type": problem.code.openai_type(),
            "param": problem.param,
            "code": openai_code(problem.code),
        }}),
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": problem.code.anthropic_type(), "message": problem.message},
            "request_id": request_id,
        }),
        Dialect::Ollama => json!({"error": problem.message}),
        Dialect::LlamaCpp => json!({"error": {
            "code": problem.http_status(),
            "message": problem.message,
            "type": problem.code.openai_type(),
        }}),
        Dialect::Native => json!({
            "code": problem.code.label(),
            "message": problem.message,
            "retriable": problem.code.retriable(),
            "retry_after_ms": problem.wait().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            "policy_label": Value::Null,
            "node_id": problem.node_id,
            "pool_id": problem.pool_id,
        }),
    }
}

fn responses_event(problem: &Problem) -> Value {
    json!({
        "type": "error",
        "code": openai_code(problem.code),
        "message": problem.message,
        "param": problem.param,
    })
}

/// OpenAI's libraries look for their own word for an overlong prompt; the other codes are ours.
const fn openai_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ContextExceeded => "context_length_exceeded",
        _ => code.label(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(dialect: Dialect, code: ErrorCode) -> Value {
        serde_json::from_slice(&error_body(dialect, &Problem::new(code, "why"), "req-1")).unwrap()
    }

    #[test]
    fn openai_errors_have_their_four_fields() {
        let value = parsed(Dialect::OpenAi, ErrorCode::ModelNotFound);
        assert_eq!(
            value,
            json!({"error": {"message": "why", "type": "not_found_error", "param": null, "code": "MODEL_NOT_FOUND"}})
        );
        let value = parsed(Dialect::OpenAi, ErrorCode::ContextExceeded);
        assert_eq!(value["error"]["code"], "context_length_exceeded");
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_with_both_numbers() {
        let mut problem = Problem::new(ErrorCode::ContextExceeded, "too long");
        problem.context = Some(Box::new(crate::ContextNumbers { prompt_tokens: 9, slot_context: 4 }));
        for dialect in [Dialect::OpenAi, Dialect::OpenAiResponses, Dialect::LlamaCpp] {
            let value: Value = serde_json::from_slice(&error_body(dialect, &problem, "r")).unwrap();
            let error = &value["error"];
            assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(9), &json!(4)), "{dialect:?}");
        }
    }

    #[test]
    fn anthropic_errors_are_typed_and_carry_the_request_id() {
        let value = parsed(Dialect::Anthropic, ErrorCode::ModelNotAvailable);
        assert_eq!(
            value,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "why"}, "request_id": "req-1"})
        );
    }

    #[test]
    fn ollama_and_llama_server_get_their_own_shapes() {
        assert_eq!(parsed(Dialect::Ollama, ErrorCode::Internal), json!({"error": "why"}));
        assert_eq!(
            parsed(Dialect::LlamaCpp, ErrorCode::TooLarge),
            json!({"error": {"code": 413, "message": "why", "type": "invalid_request_error"}})
        );
    }

    #[test]
    fn native_errors_say_when_to_come_back() {
        let value = parsed(Dialect::Native, ErrorCode::ModelNotAvailable);
        assert_eq!((&value["retriable"], &value["retry_after_ms"]), (&json!(true), &json!(1000)));
        let value = parsed(Dialect::Native, ErrorCode::Conflict);
        assert_eq!((&value["retriable"], &value["retry_after_ms"]), (&json!(false), &json!(null)));
    }

    #[test]
    fn a_terminal_event_is_one_whole_event_in_every_dialect() {
        let problem = Problem::new(ErrorCode::WorkerReset, "line one\nline two");
        for (dialect, start, end) in [
            (Dialect::OpenAi, "data: {\"error\":{", "}}\n\n"),
            (Dialect::LlamaCpp, "data: {\"error\":{", "}}\n\n"),
            (Dialect::Anthropic, "event: error\ndata: {\"type\":\"error\"", "}\n\n"),
            (Dialect::OpenAiResponses, "event: error\ndata: {\"type\":\"error\"", "}\n\n"),
            (Dialect::Native, "event: error\ndata: {\"code\":\"WORKER_RESET\"", "}\n\n"),
            (Dialect::Ollama, "{\"error\":", "}\n"),
        ] {
            let event = terminal_event(dialect, &problem, "req-1");
            let text = std::str::from_utf8(&event).unwrap();
            assert!(text.starts_with(start) && text.ends_with(end), "{dialect:?}: {text}");
            assert_eq!(text.matches("line two").count(), 1);
            assert!(
                !text.trim_end().contains("\n\n"),
                "{dialect:?}: a newline in the message splits no event"
            );
        }
    }
}
