//! What a provider's refusal means: one table, from which the documentation has its own.

use serde_json::Value;
use workflow_spec::FailureKind;

/// By what a row recognises a refusal.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    /// The error's `code` or `type`, whatever the status.
    Code(&'static [&'static str]),
    /// The answer's status, both ends included.
    Status(u16, u16),
    /// The error's `code` or `type` in an answer that had begun well, or whose status is in no row before.
    Word(&'static [&'static str]),
    /// Part of the error's message, whatever the status: only where a server has neither code nor type for it.
    Message(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct FailureRow {
    pub said: Said,
    pub kind: FailureKind,
    /// What it means, for people.
    pub meaning: &'static str,
}

const fn row(said: Said, kind: FailureKind, meaning: &'static str) -> FailureRow {
    FailureRow { said, kind, meaning }
}

/// From what a provider says to the kind of failure. The first row that fits decides.
pub const FAILURE_TABLE: [FailureRow; 23] = [
    row(
        Said::Code(&[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
        ]),
        FailureKind::Auth,
        "the account's quota is used up or not paid for: waiting does not help",
    ),
    row(
        Said::Code(&["context_length_exceeded", "exceed_context_size_error"]),
        FailureKind::Validation,
        "the prompt is longer than the model's context",
    ),
    row(
        // `… the expected peg-native format`: llama.cpp's parser of answers, as a plain error 500.
        Said::Message("output that does not match the expected"),
        FailureKind::Schema,
        "the engine cannot read its model's answer in the format that a schema or tools need; asked again as for a repair",
    ),
    row(Said::Status(300, 399), FailureKind::Validation, "a redirect: the base URL is not the API's own"),
    row(Said::Status(401, 401), FailureKind::Auth, "the key is missing, wrong or expired"),
    row(Said::Status(402, 402), FailureKind::Auth, "the account is not paid for"),
    row(Said::Status(403, 403), FailureKind::Auth, "the key may not do this"),
    row(Said::Status(404, 404), FailureKind::Validation, "no such model or path; the models are listed"),
    row(Said::Status(408, 408), FailureKind::Timeout, "the provider gave up waiting"),
    row(Said::Status(409, 409), FailureKind::Overloaded, "a conflict with another request"),
    row(Said::Status(425, 425), FailureKind::Overloaded, "too early"),
    row(Said::Status(429, 429), FailureKind::RateLimit, "too many requests or tokens"),
    row(Said::Status(400, 499), FailureKind::Validation, "the provider refuses the request as it is"),
    row(Said::Status(501, 501), FailureKind::Validation, "the provider cannot do this"),
    row(Said::Status(505, 505), FailureKind::Validation, "the provider does not speak this HTTP"),
    row(
        Said::Status(500, 599),
        FailureKind::Overloaded,
        "the provider has no room or a fault of its own (503, 529)",
    ),
    row(
        Said::Word(&["rate_limit_error", "rate_limit_exceeded", "requests", "tokens"]),
        FailureKind::RateLimit,
        "an error within a stream",
    ),
    row(
        Said::Word(&["authentication_error", "permission_error", "invalid_api_key"]),
        FailureKind::Auth,
        "an error within a stream",
    ),
    row(
        Said::Word(&["not_found_error", "model_not_found", "invalid_prompt"]),
        FailureKind::Validation,
        "an error within a stream",
    ),
    row(Said::Word(&["invalid_request_error"]), FailureKind::Validation, "an error within a stream"),
    row(Said::Word(&["timeout_error"]), FailureKind::Timeout, "an error within a stream"),
    row(
        Said::Word(&["overloaded_error", "server_error"]),
        FailureKind::Overloaded,
        "an error within a stream",
    ),
    row(
        Said::Word(&[]),
        FailureKind::Overloaded,
        "any other error within a stream, and an answer that is none",
    ),
];

/// An error as a provider tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: String,
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl Told {
    /// Reads an error's body, or an event of a stream. `None` where it is no error.
    pub(crate) fn read(body: &Value) -> Option<Told> {
        let failed = &body["response"]["error"];
        let error = match body.get("error") {
            Some(error) if !error.is_null() => error,
            _ if failed.is_object() => failed,
            _ if body["type"] == "error" => body,
            _ => return None,
        };
        let word = |value: &Value| match value {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let message = error.get("message").unwrap_or(error);
        let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        Some(Told { code: word(&error["code"]), kind: word(&error["type"]), message })
    }

    fn says(&self, words: &[&str]) -> bool {
        words.is_empty() || words.iter().any(|word| self.code == *word || self.kind == *word)
    }
}

/// The kind of a refusal: with its status, or without one in the middle of a stream.
pub(crate) fn kind_of(status: Option<u16>, told: &Told) -> FailureKind {
    // Some servers put the status into the error of a stream.
    let status = status.or_else(|| told.code.parse().ok().filter(|code| (400..600).contains(code)));
    let fits = |row: &&FailureRow| match row.said {
        Said::Code(words) | Said::Word(words) => told.says(words),
        Said::Status(from, to) => status.is_some_and(|status| (from..=to).contains(&status)),
        Said::Message(part) => told.message.contains(part),
    };
    FAILURE_TABLE.iter().find(fits).map_or(FailureKind::Overloaded, |row| row.kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(body: &Value) -> Told {
        Told::read(body).unwrap()
    }

    #[test]
    fn the_status_decides_unless_the_code_says_more() {
        let plain = Told::default();
        for (status, kind) in [
            (302, FailureKind::Validation),
            (400, FailureKind::Validation),
            (401, FailureKind::Auth),
            (403, FailureKind::Auth),
            (404, FailureKind::Validation),
            (408, FailureKind::Timeout),
            (413, FailureKind::Validation),
            (429, FailureKind::RateLimit),
            (500, FailureKind::Overloaded),
            (501, FailureKind::Validation),
            (502, FailureKind::Overloaded),
            (503, FailureKind::Overloaded),
            (504, FailureKind::Overloaded),
            (529, FailureKind::Overloaded),
        ] {
            assert_eq!(kind_of(Some(status), &plain), kind, "{status}");
        }
        let quota = told(&json!({"error": {"type": "insufficient_quota", "message": "no money"}}));
        assert_eq!(kind_of(Some(429), &quota), FailureKind::Auth, "waiting does not fill a purse");
        let busy = told(&json!({"type": "error", "error": {"type": "invalid_request_error"}}));
        assert_eq!(kind_of(Some(503), &busy), FailureKind::Overloaded, "a type's word gives way to a status");
    }

    #[test]
    fn errors_within_streams_are_told_apart_by_their_words() {
        for (event, kind) in [
            (json!({"type": "error", "error": {"type": "overloaded_error"}}), FailureKind::Overloaded),
            (json!({"type": "error", "error": {"type": "rate_limit_error"}}), FailureKind::RateLimit),
            (json!({"type": "error", "code": "rate_limit_exceeded", "message": "m"}), FailureKind::RateLimit),
            (
                json!({"type": "response.failed", "response": {"error": {"code": "server_error"}}}),
                FailureKind::Overloaded,
            ),
            (json!({"error": {"code": 400, "type": "exceed_context_size_error"}}), FailureKind::Validation),
            (json!({"error": {"code": 503, "type": "unavailable_error"}}), FailureKind::Overloaded),
            (json!({"error": "out of luck"}), FailureKind::Overloaded),
        ] {
            assert_eq!(kind_of(None, &told(&event)), kind, "{event}");
        }
    }

    #[test]
    fn an_answer_that_the_engine_cannot_read_is_no_sign_of_an_overloaded_one() {
        for format in ["peg-native", "peg-gemma4"] {
            let message =
                format!("The model produced output that does not match the expected {format} format");
            let body = json!({"error": {"code": 500, "message": message, "type": "server_error"}});
            assert_eq!(kind_of(Some(500), &told(&body)), FailureKind::Schema);
            assert_eq!(kind_of(None, &told(&body)), FailureKind::Schema, "in a stream");
        }
        let other = json!({"error": {"code": 500, "message": "Compute error.", "type": "server_error"}});
        assert_eq!(kind_of(Some(500), &told(&other)), FailureKind::Overloaded);
    }

    #[test]
    fn what_is_no_error_is_not_read_as_one() {
        assert_eq!(Told::read(&json!({"choices": [], "error": null})), None);
        assert_eq!(Told::read(&json!({"type": "response.created", "response": {"error": null}})), None);
    }
}
