//! What is known of a provider before it is asked.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use workflow::CallFailure;
use workflow_spec::FailureKind;

use crate::access::{Access, FindAccess, Token};

/// What kind of server a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Our own gateway.
    Local,
    Ollama,
    OpenAi,
    Anthropic,
    /// `mlx_lm.server`.
    Mlx,
    /// Whatever speaks OpenAI's protocol.
    OpenAiCompatible,
}

impl ProviderKind {
    pub const ALL: [ProviderKind; 6] =
        [Self::Local, Self::Ollama, Self::OpenAi, Self::Anthropic, Self::Mlx, Self::OpenAiCompatible];

    /// The word in settings and in the keys of steps.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Mlx => "mlx",
            Self::OpenAiCompatible => "openai_compatible",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Which of OpenAI's protocols is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`.
    #[default]
    Chat,
    /// `/v1/responses`.
    Responses,
}

impl Api {
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "chat" => Some(Self::Chat),
            "responses" => Some(Self::Responses),
            _ => None,
        }
    }
}

/// One provider.
#[derive(Clone)]
pub struct ProviderSetting {
    /// As specs and the command line name it.
    pub name: String,
    pub kind: ProviderKind,
    /// Only for kinds that speak OpenAI's protocol; a step's option `api` goes before it.
    pub api: Api,
    pub(crate) access: FindAccess,
    pub(crate) weights: Option<FindWeights>,
}

/// The files behind a model's name, where they lie on this machine. Asked outside of the runtime's own threads.
type FindWeights = Arc<dyn Fn(&str) -> Option<Vec<PathBuf>> + Send + Sync>;

impl ProviderSetting {
    /// A provider at a fixed place. Where it ends with `/v1`, that is not repeated.
    pub fn new(
        name: impl Into<String>,
        kind: ProviderKind,
        base_url: impl Into<String>,
        token: Option<Token>,
    ) -> Self {
        let access = Access { base_url: base_url.into(), token };
        Self::found_by(name, kind, move || Ok(access.clone()))
    }

    /// A provider whose key is missing: every request fails, before it is sent, and names the variable.
    pub fn without_key(name: impl Into<String>, kind: ProviderKind, variable: impl Into<String>) -> Self {
        let (name, variable) = (name.into(), variable.into());
        let message = format!("provider {name} has no key; set {variable} in the environment");
        Self::found_by(name, kind, move || Err(CallFailure::new(FailureKind::Auth, message.clone())))
    }

    /// Our own gateway, where `living` finds it: `None` while no daemon lives. Asked again when a request could not
    /// be made or was not allowed: a daemon that has been restarted has another token.
    pub fn local(living: impl Fn() -> Option<Access> + Send + Sync + 'static) -> Self {
        Self::found_by("local", ProviderKind::Local, move || {
            living().ok_or_else(|| {
                let message = "no daemon of this home is running; start it with `llama-orch daemon start`";
                CallFailure::new(FailureKind::Connect, message)
            })
        })
    }

    #[must_use]
    pub fn api(mut self, api: Api) -> Self {
        self.api = api;
        self
    }

    /// Where the files of this provider's models lie, so that the keys of steps can tell one model from another of the
    /// same name.
    #[must_use]
    pub fn weights(mut self, find: impl Fn(&str) -> Option<Vec<PathBuf>> + Send + Sync + 'static) -> Self {
        self.weights = Some(Arc::new(find));
        self
    }

    fn found_by(
        name: impl Into<String>,
        kind: ProviderKind,
        access: impl Fn() -> Result<Access, CallFailure> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), kind, api: Api::default(), access: Arc::new(access), weights: None }
    }
}

impl fmt::Debug for ProviderSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderSetting")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}
