//! From the settings' routes and providers to the gateway's.

use gateway::{ProviderKind, ProviderSettings, Rewrite, RouteRule, Routes};
use orch_core::{ExitCode, Failure, InstanceName};
use orch_runtime::{Provider, RouteSetting, Settings};

/// Where a local Ollama listens when nobody says otherwise.
const OLLAMA: &str = "http://127.0.0.1:11434";
const OPENAI: &str = "https://api.openai.com/v1";
const ANTHROPIC: &str = "https://api.anthropic.com";

/// The routes of a home. `environment` holds the providers' keys.
pub(crate) fn routes(
    settings: &Settings,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Routes, Failure> {
    let rules = settings.routes.iter().map(|(name, route)| (name.clone(), rule(route))).collect();
    let providers = settings.providers.iter().map(|(name, it)| provider(name, it, environment));
    Ok(Routes::new(rules, providers.collect::<Result<_, _>>()?))
}

fn rule(route: &RouteSetting) -> RouteRule {
    RouteRule {
        to: route.to.clone(),
        rewrite: Rewrite {
            set: route.set.clone(),
            default: route.default.clone(),
            strip: route.strip.clone(),
        },
    }
}

fn provider(
    name: &str,
    provider: &Provider,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ProviderSettings, Failure> {
    let invalid = |what: String| {
        Failure::new(ExitCode::ConfigInvalid, format!("providers.{}: {what}", name.escape_debug()))
            .hint("change it in config.toml")
    };
    let (kind, usual) = match provider.kind.as_str() {
        "openai" => (ProviderKind::OpenAi, Some(OPENAI)),
        "anthropic" => (ProviderKind::Anthropic, Some(ANTHROPIC)),
        "ollama" => (ProviderKind::Ollama, Some(OLLAMA)),
        // vLLM, TGI and MLX speak like OpenAI, each where its user runs it.
        _ => (ProviderKind::OpenAi, None),
    };
    let base_url = provider.base_url.as_deref().or(usual);
    let base_url = base_url
        .ok_or_else(|| invalid(format!("base_url is missing; {} has no usual address", provider.kind)))?;
    let key = provider.api_key_env.as_deref().and_then(environment);
    Ok(ProviderSettings {
        name: InstanceName::new(name)
            .map_err(|error| invalid(format!("the name cannot be used: {error}")))?,
        kind,
        base_url: base_url.trim_end_matches('/').to_owned(),
        api_key: key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()),
        api_key_env: provider.api_key_env.clone(),
    })
}
