//! All providers of a program, behind the port that a run asks through.

use std::collections::BTreeMap;
use std::sync::Arc;

use workflow::{Answer, AnswerPiece, AskModel, CallFailure, ModelFacts, ModelRequest, PortFuture};
use workflow_spec::FailureKind;

use crate::clients::Clients;
use crate::provider::Provider;
use crate::setting::ProviderSetting;

/// Providers by name. Connections, circuits and waits are shared by whoever shares it.
pub struct Providers(BTreeMap<String, Arc<Provider>>);

impl Providers {
    /// Of two settings with one name the later one counts.
    pub fn new(settings: Vec<ProviderSetting>) -> Self {
        let clients = Arc::new(Clients::default());
        let provider = |setting: ProviderSetting| {
            (setting.name.clone(), Arc::new(Provider::new(setting, Arc::clone(&clients))))
        };
        Self(settings.into_iter().map(provider).collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn find(&self, name: &str) -> Result<Arc<Provider>, CallFailure> {
        self.0.get(name).cloned().ok_or_else(|| {
            let known = self.names().collect::<Vec<_>>().join(", ");
            let message = format!("there is no provider {name:?}; there are: {known}");
            CallFailure::new(FailureKind::Validation, message)
        })
    }
}

impl AskModel for Providers {
    fn facts(&self, provider: &str, model: Option<&str>) -> PortFuture<Result<ModelFacts, CallFailure>> {
        let (found, model) = (self.find(provider), model.map(str::to_owned));
        Box::pin(async move { found?.facts(model.as_deref()).await })
    }

    fn ask(
        &self,
        request: ModelRequest,
        pieces: Arc<dyn AnswerPiece>,
    ) -> PortFuture<Result<Answer, CallFailure>> {
        let found = self.find(&request.provider);
        Box::pin(async move { found?.ask(request, pieces).await })
    }
}
