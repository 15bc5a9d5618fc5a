//! What a run is given by whoever starts it: models, programs, services. Dropping a future ends what it does: the
//! connection is closed, the process group is killed.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use workflow_spec::{FailureKind, Role};

/// What every port answers with.
pub type PortFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The world outside the run.
#[derive(Clone)]
pub struct Ports {
    pub models: Arc<dyn AskModel>,
    pub programs: Arc<dyn RunProgram>,
    pub services: Arc<dyn AskService>,
    pub serving: Option<Arc<dyn Serving>>,
    pub secrets: SecretSource,
}

/// The value of a secret by its name.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Asks models. Implementations stream, know dialects, heed rate limits and break circuits; retries by kind,
/// fallbacks and limits of requests in flight are the run's own.
pub trait AskModel: Send + Sync {
    /// What must be known of a model before a step's key can be made. Asked once for each pair in a run.
    /// `model` is `None` where the workflow leaves it to the provider: the answer names the first it lists.
    fn facts(&self, provider: &str, model: Option<&str>) -> PortFuture<Result<ModelFacts, CallFailure>>;

    /// One attempt. `pieces` hears the text as it comes.
    fn ask(
        &self,
        request: ModelRequest,
        pieces: Arc<dyn AnswerPiece>,
    ) -> PortFuture<Result<Answer, CallFailure>>;
}

/// What a step's key needs to know of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// `local`, `ollama`, `openai`, `anthropic`, `mlx` or `openai_compatible`.
    pub provider_kind: String,
    /// The model's name at the provider.
    pub model: String,
    /// Identifies the weights, where they lie on this machine and that can be told cheaply.
    pub digest: Option<String>,
}

/// A question to one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// The provider's name in spec and settings.
    pub provider: String,
    pub model: String,
    pub messages: Vec<ChatMessage>,
    /// Semantic options in OpenAI's words: `temperature`, `top_p`, `seed`, `max_tokens`, `stop` …
    pub options: Map<String, Value>,
    /// JSON Schema that the answer should fit; the provider's own mode or a grammar enforces it where there is
    /// one. Whoever asks validates.
    pub schema: Option<Arc<Value>>,
    pub tools: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

/// Hears an answer while it comes.
pub trait AnswerPiece: Send + Sync {
    fn piece(&self, text: &str);
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub finish: FinishReason,
    pub usage: TokenUse,
    /// From the request's first byte to the answer's first token.
    pub first_token: Option<Duration>,
    /// Tool calls as OpenAI's `tool_calls` array, where the model made some.
    pub tool_calls: Option<Value>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    Stop,
    /// The token limit cut it.
    Length,
    ToolCalls,
    /// The provider would not answer.
    Refused,
}

/// Tokens of one or more requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    pub prompt: u64,
    pub completion: u64,
    /// Prompt tokens that the provider had cached.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl TokenUse {
    pub const fn total(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    pub const fn add(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.cached = self.cached.saturating_add(other.cached);
    }
}

/// Why a port did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallFailure {
    pub kind: FailureKind,
    /// What happened, to what, and what to do next. Never holds a secret.
    pub message: String,
    /// How long the other side asks to wait.
    pub retry_after: Option<Duration>,
    /// Tokens that the failed attempt cost nevertheless.
    pub usage: TokenUse,
    /// Nobody knows whether it took effect nevertheless.
    pub unsure: bool,
}

impl CallFailure {
    /// A failure that leaves what happened in the dark where its kind does: no answer, or no end of one.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let unsure = matches!(kind, FailureKind::Timeout | FailureKind::Connect | FailureKind::Internal);
        Self { kind, message: message.into(), retry_after: None, usage: TokenUse::default(), unsure }
    }

    /// The same, where the other side did or may have done what it was asked, and only its answer is of no use.
    #[must_use]
    pub fn after_the_effect(self) -> Self {
        Self { unsure: true, ..self }
    }
}

/// Runs programs, each in a process group of its own that ends with it.
pub trait RunProgram: Send + Sync {
    /// `ear` hears both streams as they come. A program that cannot be started is [`FailureKind::Tool`].
    fn run(
        &self,
        request: ProgramRequest,
        ear: Arc<dyn HearProgram>,
    ) -> PortFuture<Result<ProgramEnd, CallFailure>>;
}

/// Hears a program while it runs. It is let go of when the program and its group are gone, also where the future was
/// dropped before: whatever it owns (a working folder, a place) outlives the program.
pub trait HearProgram: Send + Sync {
    fn hear(&self, stream: ProgramStream, bytes: &[u8]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramStream {
    Stdout,
    Stderr,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRequest {
    /// Never empty.
    pub argv: Vec<String>,
    /// Set on top of a small inherited environment (`PATH`, `HOME`, locale, temp folder).
    pub env: Vec<(String, String)>,
    pub stdin: Option<String>,
    pub cwd: PathBuf,
    /// More output than this fails the step.
    pub output_limit: usize,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramEnd {
    /// `None` where a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal's number, where one ended it and the system tells.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Asks HTTP services.
pub trait AskService: Send + Sync {
    fn ask(&self, request: ServiceRequest) -> PortFuture<Result<ServiceAnswer, CallFailure>>;
}

/// A request to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    /// A longer answer fails the step.
    pub answer_limit: usize,
}

/// A service's answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    pub status: u16,
    pub body: String,
    pub retry_after: Option<Duration>,
}

/// What the serving side tells of itself, so that steps can be ordered by what is loaded. A run works without.
pub trait Serving: Send + Sync {
    /// Models of the local gateway that are loaded now, by every name under which they can be asked for.
    fn loaded(&self) -> PortFuture<Vec<String>>;
    /// A step will ask for this model soon. A hint: nothing that is busy gives way to it.
    fn prepare(&self, model: String) -> PortFuture<()>;
}
