//! `[providers.<name>]`: other people's servers.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::is_http_url;
use super::keys::{PROVIDER_KEYS, PROVIDER_KINDS};
use super::layers::unknown;

/// One remote provider. Its key stays in the environment and is read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The API it speaks: openai, anthropic, ollama, vllm, tgi, mlx or openai_compatible.
    pub kind: String,
    /// Absent: the provider's own address.
    pub base_url: Option<String>,
    /// The name of the variable, never the key.
    pub api_key_env: Option<String>,
    pub models: Vec<String>,
}

pub(super) fn read(file: &Table, problems: &mut Vec<String>) -> BTreeMap<String, Provider> {
    let entries = match file.get("providers") {
        None => return BTreeMap::new(),
        Some(Value::Table(entries)) => entries,
        Some(_) => {
            problems.push("providers has to hold tables, written [providers.name]".to_owned());
            return BTreeMap::new();
        }
    };
    let mut providers = BTreeMap::new();
    for (name, entry) in entries {
        let path = format!("providers.{}", name.escape_debug());
        match entry
            .as_table()
            .ok_or_else(|| format!("{path} has to be a table"))
            .and_then(|entry| provider(entry, &path))
        {
            Ok(provider) => drop(providers.insert(name.clone(), provider)),
            Err(problem) => problems.push(problem),
        }
    }
    providers
}

fn provider(entry: &Table, path: &str) -> Result<Provider, String> {
    let known = || PROVIDER_KEYS.iter().map(|(name, _)| *name);
    if let Some(name) = entry.keys().find(|name| !known().any(|key| key == *name)) {
        return Err(unknown(name, &format!("{path}."), known()));
    }
    let kind = text(entry, path, "kind")?.ok_or_else(|| format!("{path}.kind is missing"))?;
    if !PROVIDER_KINDS.contains(&kind.as_str()) {
        return Err(format!("{path}.kind has to be one of {}", PROVIDER_KINDS.join(", ")));
    }
    let base_url = text(entry, path, "base_url")?;
    if base_url.as_deref().is_some_and(|url| !is_http_url(url)) {
        return Err(format!("{path}.base_url has to be an http:// or https:// URL without credentials"));
    }
    let api_key_env = text(entry, path, "api_key_env")?;
    if api_key_env.as_deref().is_some_and(|name| !is_variable_name(name)) {
        return Err(format!("{path}.api_key_env has to be the name of a variable, not the key itself"));
    }
    Ok(Provider { kind, base_url, api_key_env, models: models(entry, path)? })
}

fn text(entry: &Table, path: &str, name: &str) -> Result<Option<String>, String> {
    match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(format!("{path}.{name} has to be a text in quotes, and not empty")),
    }
}

/// Upper case only, so that a key written here by mistake is noticed.
fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn models(entry: &Table, path: &str) -> Result<Vec<String>, String> {
    let problem = || format!("{path}.models has to be a list of texts");
    let Some(models) = entry.get("models") else { return Ok(Vec::new()) };
    let models = models.as_array().ok_or_else(problem)?;
    models.iter().map(|model| model.as_str().map(str::to_owned).ok_or_else(problem)).collect()
}
