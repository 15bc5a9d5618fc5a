//! The providers that need no settings: found by the variables that their own tools read.

use crate::access::Token;
use crate::setting::{ProviderKind, ProviderSetting};

/// The provider that `PROVIDER` names.
pub fn default_provider(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    variable("PROVIDER").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// `openai`, `anthropic`, `ollama` and `mlx` as the environment describes them; `local` comes from the home.
pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Vec<ProviderSetting> {
    let set = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let openai_url = set("OPENAI_BASE_URL").unwrap_or_else(|| "https://api.openai.com/v1".to_owned());
    let anthropic_url = set("ANTHROPIC_BASE_URL").unwrap_or_else(|| "https://api.anthropic.com".to_owned());
    let mlx_url = set("MLX_BASE_URL").unwrap_or_else(|| "http://127.0.0.1:8080/v1".to_owned());
    let ollama_url = ollama_url(set("OLLAMA_HOST").as_deref().unwrap_or_default());
    vec![
        keyed("openai", ProviderKind::OpenAi, openai_url, "OPENAI_API_KEY", &set),
        keyed("anthropic", ProviderKind::Anthropic, anthropic_url, "ANTHROPIC_API_KEY", &set),
        ProviderSetting::new("ollama", ProviderKind::Ollama, ollama_url, None),
        ProviderSetting::new("mlx", ProviderKind::Mlx, mlx_url, None),
    ]
}

fn keyed(
    name: &str,
    kind: ProviderKind,
    base_url: String,
    variable: &str,
    set: &dyn Fn(&str) -> Option<String>,
) -> ProviderSetting {
    match set(variable).and_then(|key| Token::new(&key)) {
        Some(key) => ProviderSetting::new(name, kind, base_url, Some(key)),
        None => ProviderSetting::without_key(name, kind, variable),
    }
}

/// What Ollama's own client makes of `OLLAMA_HOST`: a host, a port, or both, with or without a scheme. The address
/// that a server listens on everywhere is reached through loopback.
fn ollama_url(host: &str) -> String {
    let written = host.split_once("://");
    let (scheme, rest) = written.unwrap_or(("http", host));
    // A scheme that is written out brings its own port, as in a browser.
    let default_port = match written {
        Some(("https", _)) => "443",
        Some(_) => "80",
        None => "11434",
    };
    let (place, path) = rest.split_once('/').map_or((rest, ""), |(place, path)| (place, path));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => (host, port),
        _ => (place, default_port),
    };
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    let path = path.trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollamas_host_is_read_as_its_own_client_reads_it() {
        for (host, url) in [
            ("", "http://127.0.0.1:11434"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:1234", "http://127.0.0.1:1234"),
            (":1234", "http://127.0.0.1:1234"),
            ("box", "http://box:11434"),
            ("box:80", "http://box:80"),
            ("[::1]:9", "http://[::1]:9"),
            ("[::]", "http://[::1]:11434"),
            ("http://box", "http://box:80"),
            ("https://box/prefix/", "https://box:443/prefix"),
        ] {
            assert_eq!(ollama_url(host), url, "{host}");
        }
    }

    #[test]
    fn a_missing_key_is_told_with_its_variable_before_anything_is_sent() {
        let settings = from_environment(&|_| None);
        for (name, variable) in [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")] {
            let setting = settings.iter().find(|setting| setting.name == name).unwrap();
            let failure = (setting.access)().unwrap_err();
            assert_eq!(failure.kind, workflow_spec::FailureKind::Auth);
            assert!(failure.message.contains(variable), "{}", failure.message);
        }
    }

    #[test]
    fn keys_and_addresses_come_from_the_environment() {
        let environment = |name: &str| match name {
            "OPENAI_API_KEY" => Some(" sk-secret\n".to_owned()),
            "OPENAI_BASE_URL" => Some("http://here/v1".to_owned()),
            "PROVIDER" => Some("mlx".to_owned()),
            _ => None,
        };
        let settings = from_environment(&environment);
        let access = (settings[0].access)().unwrap();
        assert_eq!(
            (access.base_url.as_str(), access.token.unwrap().secret()),
            ("http://here/v1", "sk-secret")
        );
        assert_eq!(default_provider(&environment).as_deref(), Some("mlx"));
    }
}
