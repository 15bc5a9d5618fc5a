//! Whose language an answer is in.

/// A protocol that clients speak. The path of a request decides it, so that even the answer to a request
/// that cannot be routed is in a shape the caller's library understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/…`: chat completions, completions, embeddings and their kin.
    OpenAi,
    /// `/v1/responses`: OpenAI's bodies, but typed events in a stream.
    OpenAiResponses,
    /// `/v1/messages`.
    Anthropic,
    /// `/api/…`; a stream is one JSON object a line.
    Ollama,
    /// llama-server's own paths, such as `/completion` and `/tokenize`.
    LlamaCpp,
    /// `/v2/…`: ours.
    Native,
}

impl Dialect {
    /// The dialect spoken under a path.
    pub fn of_path(path: &str) -> Dialect {
        if under(path, "/v1/messages") {
            Dialect::Anthropic
        } else if under(path, "/v1/responses") || under(path, "/responses") {
            Dialect::OpenAiResponses
        } else if under(path, "/v1") {
            Dialect::OpenAi
        } else if under(path, "/v2") {
            Dialect::Native
        } else if under(path, "/api") {
            Dialect::Ollama
        } else {
            Dialect::LlamaCpp
        }
    }
}

/// Whether a path is the given one or lies below it.
fn under(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_decides_the_dialect() {
        for (path, dialect) in [
            ("/v1/chat/completions", Dialect::OpenAi),
            ("/v1/responses", Dialect::OpenAiResponses),
            ("/v1/messages", Dialect::Anthropic),
            ("/v1/messages/count_tokens", Dialect::Anthropic),
            ("/v1/messages_of_somebody", Dialect::OpenAi),
            ("/v2/instances", Dialect::Native),
            ("/api/chat", Dialect::Ollama),
            ("/tokenize", Dialect::LlamaCpp),
            ("/v10", Dialect::LlamaCpp),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }
}
