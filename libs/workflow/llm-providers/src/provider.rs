//! One provider with all that is known of it while a program runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use workflow::{Answer, AnswerPiece, CallFailure, ModelFacts, ModelRequest};
use workflow_spec::FailureKind;

use crate::access::Access;
use crate::breaker::{Breaker, LeftAlone};
use crate::clients::Clients;
use crate::dialect::{Enforcement, plan, url_of};
use crate::exchange::{Exchange, Failed};
use crate::hold::Holds;
use crate::refused_schemas::RefusedSchemas;
use crate::setting::{ProviderKind, ProviderSetting};
use crate::weights::digest;

/// How long the list of models may take that helps whoever asked for a model that is not there.
const HINT_LIMIT: Duration = Duration::from_secs(2);
/// So many of them are named.
const HINTED_MODELS: usize = 10;

pub(crate) struct Provider {
    setting: ProviderSetting,
    /// As messages name it.
    who: String,
    clients: Arc<Clients>,
    /// The way that led there last.
    access: Mutex<Option<Access>>,
    breaker: Breaker,
    holds: Holds,
    refused_schemas: RefusedSchemas,
}

impl Provider {
    pub(crate) fn new(setting: ProviderSetting, clients: Arc<Clients>) -> Self {
        Self {
            who: format!("provider {}", setting.name),
            setting,
            clients,
            access: Mutex::new(None),
            breaker: Breaker::new(),
            holds: Holds::default(),
            refused_schemas: RefusedSchemas::default(),
        }
    }

    /// One attempt. A server that will not enforce the schema is asked once more without, and one that has moved is
    /// looked for once more.
    pub(crate) async fn ask(
        &self,
        request: ModelRequest,
        pieces: Arc<dyn AnswerPiece>,
    ) -> Result<Answer, CallFailure> {
        let native =
            request.schema.as_ref().is_none_or(|schema| !self.refused_schemas.has(&request.model, schema));
        let enforcement = if native { Enforcement::Native } else { Enforcement::Words };
        let asked = self.ask_there(&request, enforcement, &pieces).await;
        let failed = match (asked, &request.schema) {
            (Err(failed), Some(schema)) if native && may_be_the_schema(&failed) => {
                if let Ok(answer) = self.ask_there(&request, Enforcement::Words, &pieces).await {
                    self.refused_schemas.note(&request.model, schema);
                    return Ok(answer);
                }
                failed
            }
            (Err(failed), _) => failed,
            (Ok(answer), _) => return Ok(answer),
        };
        if failed.status == Some(404) {
            return Err(self.with_models(failed.failure).await);
        }
        Err(failed.failure)
    }

    async fn ask_there(
        &self,
        request: &ModelRequest,
        enforcement: Enforcement,
        pieces: &Arc<dyn AnswerPiece>,
    ) -> Result<Answer, Failed> {
        let access = self.access()?;
        let asked = self.ask_at(&access, request, enforcement, pieces).await;
        let Err(failed) = asked else { return asked };
        match self.moved(&access, &failed) {
            Some(access) => self.ask_at(&access, request, enforcement, pieces).await,
            None => Err(failed),
        }
    }

    async fn ask_at(
        &self,
        access: &Access,
        request: &ModelRequest,
        enforcement: Enforcement,
        pieces: &Arc<dyn AnswerPiece>,
    ) -> Result<Answer, Failed> {
        let setting = &self.setting;
        let plan = plan(setting.kind, setting.api, &access.base_url, request, enforcement)?;
        let exchange = self.exchange(access, plan.path)?;
        self.holds.pass(&request.model).await;
        let mut passage = self.breaker.admit().map_err(|left_alone| self.circuit_open(&left_alone))?;
        let asked = exchange.ask(plan, &request.model, &self.holds, &mut passage, Arc::clone(pieces)).await;
        passage.end(asked.as_ref().err().map(|failed| &failed.failure));
        asked
    }

    fn exchange<'a>(&'a self, access: &'a Access, path: &str) -> Result<Exchange<'a>, CallFailure> {
        let kind = self.setting.kind;
        let url = Url::parse(&url_of(kind, &access.base_url, path)).ok().filter(|url| url.has_host());
        let url = url.ok_or_else(|| {
            let message = format!("the base URL of {} is none; it begins with http:// or https://", self.who);
            CallFailure::new(FailureKind::Validation, message)
        })?;
        Ok(Exchange { who: &self.who, kind, access, url, clients: &self.clients })
    }

    fn access(&self) -> Result<Access, CallFailure> {
        let mut known = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(access) => Ok(access.clone()),
            None => Ok(known.insert((self.setting.access)()?).clone()),
        }
    }

    /// Another way than the one that has just failed, if there is one by now.
    fn moved(&self, failed_access: &Access, failed: &Failed) -> Option<Access> {
        let not_reached = failed.failure.kind == FailureKind::Connect && failed.status.is_none();
        if !not_reached && failed.status != Some(401) {
            return None;
        }
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.access().ok().filter(|access| access != failed_access)
    }

    fn circuit_open(&self, left_alone: &LeftAlone) -> CallFailure {
        let message = format!(
            "{} failed so often that it is left alone for {:.0} s; what failed last: {}",
            self.who,
            left_alone.wait.as_secs_f64().ceil(),
            left_alone.cause
        );
        CallFailure {
            retry_after: Some(left_alone.wait),
            ..CallFailure::new(FailureKind::CircuitOpen, message)
        }
    }

    /// What a step's key has to know.
    pub(crate) async fn facts(&self, model: Option<&str>) -> Result<ModelFacts, CallFailure> {
        let kind = self.setting.kind;
        let model = match model {
            Some(model) => model.to_owned(),
            None => self.first_model().await?,
        };
        let digest = self.digest(&model).await;
        Ok(ModelFacts { provider_kind: kind.word().to_owned(), model, digest })
    }

    /// Identifies the weights, where their files are known. Files that cannot be read are not known.
    async fn digest(&self, model: &str) -> Option<String> {
        let (find, model) = (self.setting.weights.clone()?, model.to_owned());
        let read = tokio::task::spawn_blocking(move || digest(&find(&model)?).ok());
        read.await.ok().flatten()
    }

    async fn first_model(&self) -> Result<String, CallFailure> {
        let listed = self.models().await?;
        listed.into_iter().next().ok_or_else(|| {
            let message = format!("{} lists no model; name one in the step or with --var model=", self.who);
            CallFailure::new(FailureKind::Validation, message)
        })
    }

    async fn models(&self) -> Result<Vec<String>, CallFailure> {
        let access = self.access()?;
        let listed = match self.list(&access).await {
            Err(failed) => match self.moved(&access, &failed) {
                Some(access) => self.list(&access).await,
                None => Err(failed),
            },
            listed => listed,
        };
        let listed = listed.map_err(|failed| failed.failure)?;
        Ok(names_in(&listed))
    }

    async fn list(&self, access: &Access) -> Result<Value, Failed> {
        let path = if self.setting.kind == ProviderKind::Ollama { "/api/tags" } else { "/v1/models" };
        self.exchange(access, path)?.document().await
    }

    /// The same failure with the models that there are.
    async fn with_models(&self, mut failure: CallFailure) -> CallFailure {
        if let Ok(Ok(models)) = tokio::time::timeout(HINT_LIMIT, self.models()).await
            && !models.is_empty()
        {
            let named = models.iter().take(HINTED_MODELS).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if models.len() > HINTED_MODELS { " …" } else { "" };
            failure.message = format!("{}; it has: {named}{more}", failure.message);
        }
        failure
    }
}

/// The names in a list of models, OpenAI's or Ollama's.
fn names_in(listed: &Value) -> Vec<String> {
    let list = listed["data"].as_array().or_else(|| listed["models"].as_array());
    let name = |model: &Value| {
        ["id", "model", "name"].iter().find_map(|key| model[*key].as_str()).map(str::to_owned)
    };
    list.into_iter().flatten().filter_map(name).collect()
}

/// Whether a refusal may be about the schema: the request is not accepted, and nothing says another reason.
fn may_be_the_schema(failed: &Failed) -> bool {
    let other_reason = ["context_length_exceeded", "exceed_context_size_error", "model_not_found"];
    matches!(failed.status, Some(400 | 422 | 501))
        && failed.failure.kind == FailureKind::Validation
        && !other_reason.contains(&failed.told.code.as_str())
        && !other_reason.contains(&failed.told.kind.as_str())
}
