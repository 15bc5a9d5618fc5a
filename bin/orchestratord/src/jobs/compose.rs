//! What a run is given by this program: providers, programs, services and secrets of a home and its environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_providers::{
    Access, ProviderKind, ProviderSetting, Providers, Reach, Services, Token, default_provider,
    from_environment,
};
use orch_core::{ExitCode, Failure, HomeLayout};
use orch_runtime::{Provider, Settings};
use pool_managerd::daemon_file;
use workflow::{Ports, Serving};
use workflow_spec::{Graph, JobSpec, StepKind};

use super::{Programs, weights};

/// The provider that is always there: the home's own gateway.
pub const LOCAL: &str = "local";
/// The setting that names the default provider.
const PROVIDER_SETTING: &str = "workflow.provider";

/// Looks up variables of the environment.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The environment of this process.
pub fn environment() -> Variables {
    Arc::new(|name| std::env::var(name).ok())
}

/// All providers that a workflow of this home may name.
pub struct ProviderBook {
    settings: Vec<ProviderSetting>,
}

impl ProviderBook {
    /// `local`, those of the environment, and those of `config.toml`, which go before others of their name.
    pub fn new(settings: &Settings, variables: &Variables, local: ProviderSetting) -> Result<Self, Failure> {
        let mut book = vec![local];
        book.extend(from_environment(&**variables));
        for (name, provider) in settings.providers.iter().filter(|(name, _)| *name != LOCAL) {
            book.retain(|known| known.name != *name);
            book.push(configured(name, provider, variables)?);
        }
        Ok(Self { settings: book })
    }

    fn names(&self) -> BTreeSet<&str> {
        self.settings.iter().map(|setting| setting.name.as_str()).collect()
    }

    /// Whom a job asks where its steps name nobody: what was asked for, the spec's own, `PROVIDER`, the settings',
    /// the home's gateway.
    pub fn default_for(
        &self,
        asked: Option<&str>,
        spec: &JobSpec,
        settings: &Settings,
        variables: &Variables,
    ) -> Result<String, Failure> {
        let environment = default_provider(&**variables);
        let by_choice = [
            (asked, "--provider", ExitCode::Usage),
            (spec.provider.as_deref(), "the workflow's provider", ExitCode::JobSpecInvalid),
            (environment.as_deref(), "PROVIDER", ExitCode::ConfigInvalid),
            (settings.workflow_provider.as_deref(), PROVIDER_SETTING, ExitCode::ConfigInvalid),
        ];
        let chosen = by_choice.into_iter().find_map(|(name, by, exit)| name.map(|name| (name, by, exit)));
        let Some((name, by, exit)) = chosen else { return Ok(LOCAL.to_owned()) };
        self.check(name).map_err(|why| self.unknown(exit, format!("{by}: {why}")))?;
        Ok(name.to_owned())
    }

    /// Refuses a spec whose steps name a provider that nobody knows, before anything runs.
    pub fn check_steps(&self, spec: &JobSpec) -> Result<(), Failure> {
        let mut problems = BTreeSet::new();
        self.check_graph(&spec.graph, &mut problems);
        if problems.is_empty() {
            return Ok(());
        }
        let problems = problems.into_iter().collect::<Vec<_>>().join("; ");
        Err(self.unknown(ExitCode::JobSpecInvalid, problems))
    }

    fn check_graph(&self, graph: &Graph, problems: &mut BTreeSet<String>) {
        for step in &graph.steps {
            match &step.kind {
                StepKind::Llm(llm) => {
                    let named = llm.candidates.iter().filter_map(|candidate| candidate.provider.as_deref());
                    problems.extend(
                        named
                            .filter_map(|name| self.check(name).err())
                            .map(|why| format!("step {}: {why}", step.id)),
                    );
                }
                StepKind::Workflow(workflow) => self.check_graph(&workflow.spec.graph, problems),
                StepKind::Loop(body) => self.check_graph(&body.body, problems),
                StepKind::Run(_) | StepKind::Http(_) | StepKind::Gate(_) | StepKind::Pass(_) => {}
            }
        }
    }

    fn check(&self, name: &str) -> Result<(), String> {
        if self.names().contains(name) {
            return Ok(());
        }
        Err(format!("there is no provider {}", name.escape_debug()))
    }

    fn unknown(&self, exit: ExitCode, message: String) -> Failure {
        let known = self.names().into_iter().collect::<Vec<_>>().join(", ");
        Failure::new(exit, message)
            .hint(format!("known are {known}; others are described in config.toml under [providers.NAME]"))
    }

    /// Everything that a run is given. `reach` is what its `http` steps may ask.
    pub fn into_ports(self, variables: Variables, reach: Reach, serving: Option<Arc<dyn Serving>>) -> Ports {
        Ports {
            models: Arc::new(Providers::new(self.settings)),
            programs: Arc::new(Programs::new()),
            services: Arc::new(Services::new(reach)),
            serving,
            secrets: variables,
        }
    }
}

/// The gateway that the steps of this home's jobs ask: the one elsewhere that was chosen, else that of the home's
/// daemon, whenever one lives.
pub fn local_gateway(home: &HomeLayout, elsewhere: Option<(String, Option<String>)>) -> ProviderSetting {
    if let Some((url, token)) = elsewhere {
        let token = token.and_then(|token| Token::new(&token));
        return ProviderSetting::new(LOCAL, ProviderKind::Local, url, token);
    }
    let (living, models) = (home.clone(), home.clone());
    let gateway = ProviderSetting::local(move || {
        let daemon = daemon_file::living(&living)?;
        let base_url = format!("http://{}", daemon.connect_address());
        Some(Access { base_url, token: Token::new(&daemon.token) })
    });
    gateway.weights(move |model| weights(&models, model))
}

fn configured(name: &str, provider: &Provider, variables: &Variables) -> Result<ProviderSetting, Failure> {
    let kind = match provider.kind.as_str() {
        "openai" => ProviderKind::OpenAi,
        "anthropic" => ProviderKind::Anthropic,
        "ollama" => ProviderKind::Ollama,
        "mlx" => ProviderKind::Mlx,
        // vLLM and TGI speak like OpenAI.
        _ => ProviderKind::OpenAiCompatible,
    };
    let usual = || usual_address(kind).map(str::to_owned);
    let Some(base_url) = provider.base_url.clone().or_else(usual) else {
        let message = format!("providers.{}: base_url is missing", name.escape_debug());
        return Err(Failure::new(ExitCode::ConfigInvalid, message).hint("add it in config.toml"));
    };
    let Some(variable) = &provider.api_key_env else {
        return Ok(ProviderSetting::new(name, kind, base_url, None));
    };
    Ok(match variables(variable).and_then(|key| Token::new(&key)) {
        Some(key) => ProviderSetting::new(name, kind, base_url, Some(key)),
        None => ProviderSetting::without_key(name, kind, variable),
    })
}

/// Where a provider is that everybody knows.
const fn usual_address(kind: ProviderKind) -> Option<&'static str> {
    match kind {
        ProviderKind::OpenAi => Some("https://api.openai.com/v1"),
        ProviderKind::Anthropic => Some("https://api.anthropic.com"),
        ProviderKind::Ollama => Some("http://127.0.0.1:11434"),
        ProviderKind::Local | ProviderKind::Mlx | ProviderKind::OpenAiCompatible => None,
    }
}
