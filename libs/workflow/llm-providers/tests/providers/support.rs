//! What the tests share: providers of each kind at one fake server, and questions.

use std::sync::{Arc, Mutex};

use llm_providers::{Api, ProviderKind, ProviderSetting, Providers, Token};
use serde_json::{Map, Value};
use testkit::provider::FakeProvider;
use workflow::{Answer, AnswerPiece, AskModel as _, CallFailure, ChatMessage, ModelRequest};
use workflow_spec::Role;

/// The names of one provider for each protocol.
pub(crate) const ALL: [&str; 6] = ["local", "openai", "responses", "anthropic", "ollama", "mlx"];

pub(crate) const KEY: &str = "sk-a-very-secret-key";

/// A provider for each protocol, all at this address.
pub(crate) fn providers(url: &str) -> Providers {
    let setting = |name: &str, kind| ProviderSetting::new(name, kind, url, Token::new(KEY));
    Providers::new(vec![
        setting("local", ProviderKind::Local),
        setting("openai", ProviderKind::OpenAi),
        setting("responses", ProviderKind::OpenAi).api(Api::Responses),
        setting("anthropic", ProviderKind::Anthropic),
        setting("ollama", ProviderKind::Ollama),
        setting("mlx", ProviderKind::Mlx),
    ])
}

pub(crate) fn question(provider: &str, prompt: &str) -> ModelRequest {
    ModelRequest {
        provider: provider.to_owned(),
        model: "fake".to_owned(),
        messages: vec![
            ChatMessage { role: Role::System, content: "Be brief.".to_owned() },
            ChatMessage { role: Role::User, content: prompt.to_owned() },
        ],
        options: Map::new(),
        schema: None,
        tools: None,
    }
}

pub(crate) fn with_options(mut request: ModelRequest, options: Value) -> ModelRequest {
    let Value::Object(options) = options else { panic!("options are an object") };
    request.options = options;
    request
}

/// Keeps the pieces of an answer.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<String>>);

impl AnswerPiece for Heard {
    fn piece(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Heard {
    pub(crate) fn pieces(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) async fn ask(providers: &Providers, request: ModelRequest) -> Result<Answer, CallFailure> {
    providers.ask(request, Arc::new(Heard::default())).await
}

/// The body of the latest request.
#[track_caller]
pub(crate) fn last_body(fake: &FakeProvider) -> Value {
    fake.requests().last().expect("a request came").body.clone()
}
