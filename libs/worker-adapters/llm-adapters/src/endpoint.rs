//! The paths of an engine that clients may reach by the name of a model.

use crate::Dialect;

/// What the gateway needs to know about a path before it passes a request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub dialect: Dialect,
    /// Whether a `POST` keeps one of the engine's slots busy until its answer ends.
    pub takes_slot: bool,
}

/// Paths outside `/v1` that llama-server knows and that do work in a slot.
const SLOT_PATHS: [&str; 10] = [
    "/chat/completions",
    "/completion",
    "/completions",
    "/embedding",
    "/embeddings",
    "/infill",
    "/rerank",
    "/reranking",
    "/responses",
    "/predict",
];

/// Paths outside `/v1` that ask the engine for something else.
const PLAIN_PATHS: [&str; 7] = [
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/props",
    "/slots",
    "/lora-adapters",
    "/responses/input_tokens",
];

/// Ollama's paths that an engine answers, once they are translated.
const OLLAMA_PATHS: [&str; 3] = ["/api/chat", "/api/generate", "/api/embed"];

/// Paths under `/v1` that only count or control, and so need no slot.
const PLAIN_V1_ENDINGS: [&str; 3] = ["/input_tokens", "/count_tokens", "/control"];

/// Every path for which there is an endpoint; `*` stands for any rest.
pub fn endpoint_paths() -> impl Iterator<Item = &'static str> {
    ["/v1/*"].into_iter().chain(OLLAMA_PATHS).chain(SLOT_PATHS).chain(PLAIN_PATHS)
}

/// The endpoint at a path, if the data plane passes it on. Everything under `/v1` is passed on, because
/// engines gain endpoints there every few weeks; outside it only what is known.
pub fn find_endpoint(path: &str) -> Option<Endpoint> {
    let dialect = Dialect::of_path(path);
    let takes_slot = if path.starts_with("/v1/") {
        !PLAIN_V1_ENDINGS.iter().any(|ending| path.ends_with(ending)) && !path.starts_with("/v1/stream")
    } else if SLOT_PATHS.contains(&path) || OLLAMA_PATHS.contains(&path) {
        true
    } else if PLAIN_PATHS.contains(&path) || is_slot_action(path) {
        false
    } else {
        return None;
    };
    Some(Endpoint { dialect, takes_slot })
}

/// `/slots/{id}`: saving, restoring and erasing a slot's cache.
fn is_slot_action(path: &str) -> bool {
    let id = path.strip_prefix("/slots/").unwrap_or_default();
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generating_takes_a_slot_and_counting_does_not() {
        for path in [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/rerank",
            "/v1/reranking",
            "/v1/messages",
            "/v1/audio/transcriptions",
            "/v1/audio/speech",
            "/rerank",
            "/infill",
            "/completion",
            "/api/chat",
            "/api/generate",
            "/api/embed",
        ] {
            assert!(find_endpoint(path).is_some_and(|endpoint| endpoint.takes_slot), "{path}");
        }
        for path in [
            "/v1/messages/count_tokens",
            "/v1/responses/input_tokens",
            "/v1/chat/completions/input_tokens",
            "/tokenize",
            "/detokenize",
            "/apply-template",
            "/props",
            "/slots",
            "/slots/3",
            "/lora-adapters",
            "/v1/streams/lookup",
        ] {
            assert!(find_endpoint(path).is_some_and(|endpoint| !endpoint.takes_slot), "{path}");
        }
    }

    #[test]
    fn every_listed_path_is_one() {
        for path in endpoint_paths() {
            assert!(find_endpoint(&path.replace('*', "anything")).is_some(), "{path}");
        }
    }

    #[test]
    fn unknown_paths_are_not_passed_on() {
        for path in ["/", "/tools", "/slots/x", "/slots/", "/v1", "/v2/instances", "/cors-proxy", "/api/pull"]
        {
            assert_eq!(find_endpoint(path), None, "{path}");
        }
    }
}
