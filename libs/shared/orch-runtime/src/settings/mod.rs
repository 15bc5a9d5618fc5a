//! The settings of a home: file, environment and flags become one set of validated values.

mod keys;
mod layers;
mod providers;
mod routes;
mod schema;
mod tokens_file;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use orch_core::{ByteCount, ExitCode, Failure};
use toml::Table;

use crate::environment;
use crate::guard::{self, GuardSettings};
use crate::tls::TlsFiles;
use crate::token::TokenSet;
pub use keys::{KEYS, SettingKey};
use layers::Layers;
pub use layers::{Origin, SettingKind, SettingValue};
pub use providers::Provider;
pub use routes::RouteSetting;
pub use tokens_file::TokensFile;

const TOKENS_FILE: &str = "auth.tokens_file";
/// Far above any real settings file, low enough to read a wrong file without harm.
const MAX_FILE: u64 = 1024 * 1024;

/// Everything a daemon is told, valid and complete.
#[derive(Clone, Debug)]
pub struct Settings {
    pub orchestratord: ControlPlaneSettings,
    pub pool_managerd: NodeSettings,
    pub auth: AuthSettings,
    pub limits: Limits,
    /// `capture.bodies`
    pub capture_bodies: bool,
    pub providers: BTreeMap<String, Provider>,
    pub routes: BTreeMap<String, RouteSetting>,
    /// `workflow.allow_run`
    pub workflow_allow_run: bool,
    /// `workflow.provider`
    pub workflow_provider: Option<String>,
    values: Vec<SettingValue>,
}

/// `[orchestratord]`
#[derive(Clone, Debug)]
pub struct ControlPlaneSettings {
    pub addr: SocketAddr,
    pub node_timeout: Duration,
    pub placement_strategy: PlacementStrategy,
    /// `tls_cert` and `tls_key`; absent, plain HTTP is spoken.
    pub tls: Option<TlsFiles>,
}

/// How a replica is chosen among those that could take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementStrategy {
    Affinity,
    RoundRobin,
    LeastLoaded,
    Random,
}

/// `[pool_managerd]`
#[derive(Clone, Debug)]
pub struct NodeSettings {
    pub addr: SocketAddr,
    /// Absent: the host name counts.
    pub node_id: Option<String>,
    pub advertise: Option<String>,
    pub orchestratord_url: Option<String>,
    pub heartbeat_interval: Duration,
    /// What engines may take together on the host; absent: all there is.
    pub memory: Option<ByteCount>,
    /// The same on each device.
    pub device_memory: Option<ByteCount>,
}

/// `[auth]`, and the tokens of the environment.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Those of `LLORCH_API_TOKEN` first, then those of `tokens_file` as it was when the settings were read.
    pub tokens: TokenSet,
    /// `tokens_file`, which may change while a daemon runs.
    pub tokens_file: Option<TokensFile>,
    pub guard: GuardSettings,
}

/// `[limits]`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub body: ByteCount,
    pub queue: u32,
    pub full_policy: FullPolicy,
    pub queue_deadline: Duration,
    pub token_idle: Duration,
    pub drain: Duration,
    pub min_residency: Duration,
    pub starvation: Duration,
    pub retries: u32,
}

/// What happens to a request that meets a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPolicy {
    Reject,
    DropLru,
}

impl Settings {
    /// Reads `config.toml` (which need not exist), the environment and flags.
    ///
    /// `flags` are pairs of a key's path (`orchestratord.addr`) and its value. All problems are reported at
    /// once; each names its key.
    pub fn load(
        file: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
        flags: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let table = read_table(file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut layers = Layers::new(&table, environment, flags);
        let settings = Self::assemble(&mut layers, &table, environment, folder);
        match layers.problems.as_slice() {
            [] => Ok(Self { values: layers.values, ..settings }),
            problems => Err(Failure::new(ExitCode::ConfigInvalid, problems.join("; "))
                .hint(format!("change it in {}, in the environment or on the command line", file.display()))),
        }
    }

    fn assemble(
        layers: &mut Layers<'_>,
        file: &Table,
        environment: &dyn Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Self {
        layers.reject_unknown();
        reject_unbuilt(layers, folder);
        let providers = providers::read(file, &mut layers.problems);
        let routes = routes::read(file, &providers, &mut layers.problems);
        let settings = Self {
            orchestratord: control_plane(layers, folder),
            pool_managerd: node(layers),
            auth: auth(layers, environment, folder),
            limits: limits(layers),
            capture_bodies: layers.flag("capture.bodies"),
            providers,
            routes,
            workflow_allow_run: layers.flag("workflow.allow_run"),
            workflow_provider: layers.text("workflow.provider"),
            values: Vec::new(),
        };
        reject_contradictions(&settings, layers);
        settings
    }

    /// Every key with its value and where that came from, in the order of the documentation. Holds no secret.
    pub fn values(&self) -> &[SettingValue] {
        &self.values
    }

    /// JSON Schema of `config.toml`, for editors.
    pub fn json_schema() -> serde_json::Value {
        schema::json_schema()
    }

    /// Where a key's value came from; nothing for a key that does not exist.
    pub fn origin(&self, path: &str) -> Option<Origin> {
        self.values.iter().find(|value| value.key == path).map(|value| value.origin)
    }
}

fn control_plane(layers: &mut Layers<'_>, folder: &Path) -> ControlPlaneSettings {
    ControlPlaneSettings {
        addr: layers.address("orchestratord.addr"),
        node_timeout: Duration::from_millis(layers.number("orchestratord.node_timeout_ms")),
        placement_strategy: match layers.choice("orchestratord.placement_strategy") {
            "round-robin" => PlacementStrategy::RoundRobin,
            "least-loaded" => PlacementStrategy::LeastLoaded,
            "random" => PlacementStrategy::Random,
            _ => PlacementStrategy::Affinity,
        },
        tls: tls(layers, folder),
    }
}

/// One without the other would be taken for encryption that is not there.
fn tls(layers: &mut Layers<'_>, folder: &Path) -> Option<TlsFiles> {
    const CERT: &str = "orchestratord.tls_cert";
    const KEY: &str = "orchestratord.tls_key";
    match (layers.text(CERT), layers.text(KEY)) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert: folder.join(cert), key: folder.join(key) }),
        (Some(_), None) => {
            layers.problem(CERT, "is set without orchestratord.tls_key");
            None
        }
        (None, Some(_)) => {
            layers.problem(KEY, "is set without orchestratord.tls_cert");
            None
        }
        (None, None) => None,
    }
}

fn node(layers: &mut Layers<'_>) -> NodeSettings {
    NodeSettings {
        addr: layers.address("pool_managerd.addr"),
        node_id: node_id(layers),
        advertise: url(layers, "pool_managerd.advertise"),
        orchestratord_url: url(layers, "pool_managerd.orchestratord_url"),
        heartbeat_interval: Duration::from_millis(layers.number("pool_managerd.heartbeat_interval_ms")),
        memory: layers.optional_number("pool_managerd.memory_mb").map(ByteCount::from_mib),
        device_memory: layers.optional_number("pool_managerd.device_memory_mb").map(ByteCount::from_mib),
    }
}

/// A node's name is part of paths, headers and metric labels.
fn node_id(layers: &mut Layers<'_>) -> Option<String> {
    const PATH: &str = "pool_managerd.node_id";
    let id = layers.text(PATH)?;
    let fits =
        id.len() <= 63 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        layers.problem(PATH, "has to be up to 63 letters, digits, dots, dashes and underscores");
    }
    fits.then_some(id)
}

fn url(layers: &mut Layers<'_>, path: &'static str) -> Option<String> {
    let url = layers.text(path)?;
    if !is_http_url(&url) {
        layers.problem(path, "has to be an http:// or https:// URL without credentials");
    }
    Some(url)
}

fn is_http_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

fn auth(
    layers: &mut Layers<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    folder: &Path,
) -> AuthSettings {
    let listed = environment(environment::API_TOKEN).unwrap_or_default();
    let environment_tokens = TokenSet::parse(&listed).unwrap_or_else(|error| {
        layers.problem(environment::API_TOKEN, format_args!("cannot be used: {error}"));
        TokenSet::default()
    });
    let tokens_file = layers
        .text(TOKENS_FILE)
        .map(|name| TokensFile { path: folder.join(name), environment: environment_tokens.clone() });
    let tokens = match tokens_file.as_ref().map(TokensFile::read) {
        None => environment_tokens,
        Some(Ok(tokens)) => tokens,
        Some(Err(why)) => {
            layers.problem(TOKENS_FILE, format_args!("names a file that {why}"));
            environment_tokens
        }
    };
    let guard =
        GuardSettings { hosts: layers.list("auth.hosts"), cors_origins: layers.list("auth.cors_origins") };
    if !guard.hosts.iter().all(|host| guard::is_host_entry(host)) {
        layers.problem("auth.hosts", "has to hold host names, as box.lan or box.lan:8080");
    }
    if !guard.cors_origins.iter().all(|origin| guard::is_origin_entry(origin)) {
        layers.problem("auth.cors_origins", "has to hold origins, as https://chat.example; * is not one");
    }
    AuthSettings { tokens, tokens_file, guard }
}

fn limits(layers: &mut Layers<'_>) -> Limits {
    Limits {
        body: ByteCount::from_mib(layers.number("limits.body_mb")),
        queue: layers.number("limits.queue") as u32,
        full_policy: match layers.choice("limits.full_policy") {
            "drop-lru" => FullPolicy::DropLru,
            _ => FullPolicy::Reject,
        },
        queue_deadline: Duration::from_secs(layers.number("limits.queue_deadline_s")),
        token_idle: Duration::from_secs(layers.number("limits.token_idle_s")),
        drain: Duration::from_secs(layers.number("limits.drain_s")),
        min_residency: Duration::from_secs(layers.number("limits.min_residency_s")),
        starvation: Duration::from_secs(layers.number("limits.starvation_s")),
        retries: layers.number("limits.retries") as u32,
    }
}

/// What the settings can name but nobody has built yet is refused, not ignored.
fn reject_unbuilt(layers: &mut Layers<'_>, folder: &Path) {
    if layers.flag("orchestratord.cloud_profile") {
        layers.problem(
            "orchestratord.cloud_profile",
            "is not built yet: only one machine is supported; set it to false",
        );
    }
    let store = layers.text(keys::STORE);
    match layers.text("orchestratord.store_file") {
        None => check_store(layers, keys::STORE, store.as_deref().unwrap_or("embedded")),
        Some(_) if store.as_deref() != Some("embedded") => {
            layers.problem("orchestratord.store_file", "and orchestratord.store are both set; keep one");
        }
        Some(name) => match read_bounded(&folder.join(name)) {
            Ok(Some(text)) => check_store(layers, "orchestratord.store_file", text.trim()),
            Ok(None) => layers.problem("orchestratord.store_file", "names a file that does not exist"),
            Err(error) => layers.problem("orchestratord.store_file", format_args!("cannot be read: {error}")),
        },
    }
}

/// The value may hold a password and is not repeated.
fn check_store(layers: &mut Layers<'_>, path: &str, store: &str) {
    if store.starts_with("postgres://") || store.starts_with("postgresql://") {
        layers.problem(path, "names PostgreSQL, which is not built yet; set it to embedded");
    } else if store != "embedded" {
        layers.problem(path, "has to be embedded, or a postgres:// URL");
    }
}

fn reject_contradictions(settings: &Settings, layers: &mut Layers<'_>) {
    if settings.pool_managerd.heartbeat_interval >= settings.orchestratord.node_timeout {
        layers.problem(
            "pool_managerd.heartbeat_interval_ms",
            "has to be less than orchestratord.node_timeout_ms, else every node is offline between heartbeats",
        );
    }
    let (control, node) = (settings.orchestratord.addr, settings.pool_managerd.addr);
    if control == node && control.port() != 0 {
        layers
            .problem("pool_managerd.addr", "is also orchestratord.addr; two servers cannot share an address");
    }
}

/// The settings file; an empty table if there is none.
fn read_table(file: &Path) -> Result<Table, Failure> {
    let refused = |what: String| Failure::new(ExitCode::ConfigParse, what);
    let text = read_bounded(file)
        .map_err(|error| refused(format!("cannot read {}: {error}", file.display())))?
        .unwrap_or_default();
    let text = text.trim_start_matches('\u{feff}');
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        refused(format!("{}, line {line}: {}", file.display(), error.message()))
    })
}

/// A file's text, nothing if there is none, an error if it is too large or not UTF-8.
fn read_bounded(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {}", ByteCount(MAX_FILE)),
        ));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
