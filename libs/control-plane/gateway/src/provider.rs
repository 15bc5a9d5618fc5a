//! Somebody else's server as a place to send requests to.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};
use http_body::{Body, SizeHint};
use llm_adapters::Problem;
use orch_core::{ErrorCode, InstanceName, ReplicaId, Status, UnixMillis};

use crate::dispatch::Outgoing;
use crate::headers::TargetHeaders;
use crate::live::{LiveReplica, Target};
use crate::table::{Loadable, Replica, ReplicaKey, RoutedInstance};

/// The node id of all providers.
const ELSEWHERE: &str = "remote";
/// As many requests at one time are plenty for one provider; what it allows it says itself.
const SLOTS: u32 = 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The version that is asked for where the client names none.
const DEFAULT_ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Headers of a client that a provider may see. Everything else may tell of the client's machine.
const PASSED: [HeaderName; 7] = [
    ACCEPT,
    CONTENT_TYPE,
    USER_AGENT,
    ANTHROPIC_VERSION,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("traceparent"),
];

/// Which API a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenAI, and all that speak like it.
    OpenAi,
    Anthropic,
    /// OpenAI's and its own.
    Ollama,
}

/// What of OpenAI's API a client may use; the rest of it is about the account of the key's owner.
const OPENAI_PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
];
const ANTHROPIC_PATHS: [&str; 2] = ["/v1/messages", "/v1/messages/count_tokens"];
/// Ollama's own, and what it has of OpenAI's.
const OLLAMA_PATHS: [&str; 7] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
];

impl ProviderKind {
    /// Whether a client's `POST` to this path may go there as it is.
    pub(crate) fn serves(self, path: &str) -> bool {
        match self {
            ProviderKind::OpenAi => OPENAI_PATHS.contains(&path),
            ProviderKind::Anthropic => ANTHROPIC_PATHS.contains(&path),
            ProviderKind::Ollama => OLLAMA_PATHS.contains(&path),
        }
    }
}

/// What is known of one provider.
#[derive(Clone)]
pub struct ProviderSettings {
    pub name: InstanceName,
    pub kind: ProviderKind,
    /// Without a slash at the end. Where it ends with `/v1`, that is not repeated.
    pub base_url: String,
    /// Its key, and the variable that it is read from, for messages.
    pub api_key: Option<String>,
    pub api_key_env: Option<String>,
}

impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("base_url", &self.base_url)
            .field("has_api_key", &self.api_key.is_some())
            .finish_non_exhaustive()
    }
}

/// A provider with its connections.
pub(crate) struct Provider {
    pub(crate) settings: ProviderSettings,
    /// Made when it is first needed: it reads the system's certificates.
    client: OnceLock<reqwest::Client>,
}

impl Provider {
    /// The provider as a replica, so that slots, metrics and records treat it as one.
    pub(crate) fn target(settings: ProviderSettings) -> Target {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let instance = RoutedInstance {
            name: settings.name.clone(),
            aliases: Vec::new(),
            status: Status::Running,
            loadable: Loadable::No,
            created_at: UnixMillis(0),
            replicas: Vec::new(),
        };
        let replica = Replica {
            key: ReplicaKey {
                node_id: ELSEWHERE.to_owned(),
                pool_id: settings.name.to_string(),
                replica_id: ReplicaId::FIRST,
            },
            address,
            api_key: None,
            ready: true,
            draining: false,
            slots_total: SLOTS,
            slot_context: None,
            device_mask: None,
            free_vram: None,
            engine_version: None,
            last_good_probe: UnixMillis(0),
        };
        Target {
            headers: TargetHeaders::new(&instance, &replica),
            key: Arc::new(replica.key.clone()),
            replica,
            live: Arc::new(LiveReplica::new(address)),
            metrics: OnceLock::new(),
            provider: Some(Self { settings, client: OnceLock::new() }),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&self, request: &Outgoing) -> Result<(response::Parts, RemoteAnswer), Problem> {
        let url = self.url(request);
        let sent =
            self.client()?.request(request.method.clone(), &url).headers(self.headers(&request.headers)?);
        let answer =
            sent.body(request.body.clone()).send().await.map_err(|error| self.unreachable(&error))?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // The client would look for the fault in its own key; and some repeat a part of ours.
            return Err(
                self.problem(ErrorCode::PoolUnavailable, "it does not accept the key that is set for it")
            );
        }
        let (parts, body) = http::Response::from(answer).into_parts();
        Ok((parts, RemoteAnswer { body: Box::pin(body) }))
    }

    fn client(&self) -> Result<&reqwest::Client, Problem> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Two requests may come here at once; the second's failure means that the first has done it.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let made = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // What is sent with a key goes nowhere but where the user said.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = made.map_err(|error| self.unreachable(&error))?;
        Ok(self.client.get_or_init(|| client))
    }

    fn url(&self, request: &Outgoing) -> String {
        let base = &self.settings.base_url;
        let path = request.uri.path();
        let path = if base.ends_with("/v1") { path.strip_prefix("/v1").unwrap_or(path) } else { path };
        match request.uri.query() {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        }
    }

    fn headers(&self, client: &HeaderMap) -> Result<HeaderMap, Problem> {
        let mut headers = HeaderMap::new();
        for name in &PASSED {
            if let Some(value) = client.get(name) {
                headers.insert(name, value.clone());
            }
        }
        if self.settings.kind == ProviderKind::Anthropic {
            headers.entry(ANTHROPIC_VERSION).or_insert(DEFAULT_ANTHROPIC_VERSION);
        }
        let Some(key) = self.key()? else { return Ok(headers) };
        let (name, text) = match self.settings.kind {
            ProviderKind::Anthropic => (API_KEY, key.to_owned()),
            ProviderKind::OpenAi | ProviderKind::Ollama => (AUTHORIZATION, format!("Bearer {key}")),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            self.problem(ErrorCode::ModelNotAvailable, "its key holds characters that cannot be sent")
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(headers)
    }

    fn key(&self) -> Result<Option<&str>, Problem> {
        match (&self.settings.api_key, &self.settings.api_key_env) {
            (None, Some(variable)) => Err(self.problem(
                ErrorCode::ModelNotAvailable,
                &format!("there is no key: set {variable} in the environment of the daemon and restart it"),
            )),
            (key, _) => Ok(key.as_deref()),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Problem {
        let why = if error.is_timeout() { "it does not answer in time" } else { "it cannot be reached" };
        self.problem(ErrorCode::ModelNotAvailable, why)
    }

    fn problem(&self, code: ErrorCode, why: &str) -> Problem {
        Problem::new(code, format!("provider {}: {why}", self.settings.name))
            .at(ELSEWHERE, self.settings.name.as_str())
    }
}

/// The body of a provider's answer.
pub(crate) struct RemoteAnswer {
    body: Pin<Box<reqwest::Body>>,
}

impl RemoteAnswer {
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            return match ready!(self.body.as_mut().poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    // Trailers say nothing that a client of ours expects.
                    Err(_) => continue,
                },
                Some(Err(_)) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            };
        }
    }
}
