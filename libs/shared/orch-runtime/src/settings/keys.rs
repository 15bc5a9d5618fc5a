//! The table of all settings: the one home of their names, defaults, ranges and meanings.

use super::SettingKind::{self, Address, Choice, Flag, List, Number, Text};
use crate::environment;

/// One key of `config.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingKey {
    /// `section.name`.
    pub path: &'static str,
    pub kind: SettingKind,
    /// As it would be written in the environment; absent where nothing stands for itself.
    pub default: Option<&'static str>,
    pub variable: Option<&'static str>,
    pub meaning: &'static str,
}

impl SettingKey {
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The command-line flag: the key with dashes. A secret has none.
    pub fn flag(&self) -> Option<String> {
        (self.path != STORE).then(|| format!("--{}", self.name().replace('_', "-")))
    }
}

/// A PostgreSQL URL may hold a password, so this value is neither a flag nor ever shown.
pub(super) const STORE: &str = "orchestratord.store";

/// A year, in the two units of time used here.
const YEAR_S: u64 = 31_536_000;
const YEAR_MS: u64 = YEAR_S * 1000;

/// A petabyte.
const MOST_MIB: u64 = 1 << 30;

const fn key(
    path: &'static str,
    kind: SettingKind,
    default: &'static str,
    meaning: &'static str,
) -> SettingKey {
    SettingKey { path, kind, default: Some(default), variable: None, meaning }
}

const fn unset(path: &'static str, kind: SettingKind, meaning: &'static str) -> SettingKey {
    SettingKey { path, kind, default: None, variable: None, meaning }
}

const fn variable(key: SettingKey, name: &'static str) -> SettingKey {
    SettingKey { variable: Some(name), ..key }
}

pub(super) const STRATEGIES: &[&str] = &["affinity", "round-robin", "least-loaded", "random"];
pub(super) const FULL_POLICIES: &[&str] = &["reject", "drop-lru"];

/// Every key but those of `[providers.<name>]`.
pub const KEYS: &[SettingKey] = &[
    variable(
        key("orchestratord.addr", Address, "127.0.0.1:8080", "address the control plane listens on"),
        environment::ORCHESTRATORD_ADDR,
    ),
    variable(
        key("orchestratord.cloud_profile", Flag, "false", "whether nodes join over the network"),
        environment::ORCHESTRATORD_CLOUD_PROFILE,
    ),
    variable(
        key(
            "orchestratord.node_timeout_ms",
            Number { max: YEAR_MS },
            "30000",
            "a node without a heartbeat for this long is offline",
        ),
        environment::ORCHESTRATORD_NODE_TIMEOUT_MS,
    ),
    variable(
        key("orchestratord.placement_strategy", Choice(STRATEGIES), "affinity", "how a replica is chosen"),
        environment::ORCHESTRATORD_PLACEMENT_STRATEGY,
    ),
    variable(
        key(STORE, Text, "embedded", "where records are kept: embedded, or a PostgreSQL URL"),
        environment::ORCHESTRATORD_STORE,
    ),
    unset("orchestratord.store_file", Text, "a file that holds the value of store"),
    unset("orchestratord.tls_cert", Text, "PEM file with the certificate chain: with tls_key, TLS is spoken"),
    unset("orchestratord.tls_key", Text, "PEM file with the certificate's key"),
    variable(
        key("pool_managerd.addr", Address, "127.0.0.1:9200", "address the node listens on"),
        environment::POOL_MANAGERD_ADDR,
    ),
    variable(
        unset("pool_managerd.node_id", Text, "the node's name; the host name if not set"),
        environment::POOL_MANAGERD_NODE_ID,
    ),
    variable(
        unset("pool_managerd.advertise", Text, "URL under which control planes reach the node"),
        environment::POOL_MANAGERD_ADVERTISE,
    ),
    variable(
        unset("pool_managerd.orchestratord_url", Text, "URL of the control plane"),
        environment::ORCHESTRATORD_URL,
    ),
    variable(
        key(
            "pool_managerd.heartbeat_interval_ms",
            Number { max: YEAR_MS },
            "10000",
            "time between heartbeats",
        ),
        environment::POOL_MANAGERD_HEARTBEAT_INTERVAL_MS,
    ),
    unset(
        "pool_managerd.memory_mb",
        Number { max: MOST_MIB },
        "most host memory that all engines may take together, in MiB; all there is if not set",
    ),
    unset(
        "pool_managerd.device_memory_mb",
        Number { max: MOST_MIB },
        "most memory of each device that all engines may take together, in MiB; all there is if not set",
    ),
    unset("auth.tokens_file", Text, "file with bearer tokens, one a line"),
    key("auth.hosts", List, "", "names besides localhost under which an open home may be asked"),
    key("auth.cors_origins", List, "", "web pages that may call, as scheme://host[:port]"),
    key("limits.body_mb", Number { max: 16_384 }, "32", "largest request body, in MiB"),
    key("limits.queue", Number { max: 1_000_000 }, "128", "requests that may wait for one route"),
    key("limits.full_policy", Choice(FULL_POLICIES), "reject", "what happens when a queue is full"),
    key("limits.queue_deadline_s", Number { max: YEAR_S }, "300", "longest wait in a queue"),
    key("limits.token_idle_s", Number { max: YEAR_S }, "120", "longest wait for the next token"),
    key("limits.drain_s", Number { max: YEAR_S }, "4", "time running requests get when something ends"),
    key(
        "limits.min_residency_s",
        Number { max: YEAR_S },
        "10",
        "time a model loaded on demand stays at least",
    ),
    key("limits.starvation_s", Number { max: YEAR_S }, "60", "longest time a model may be kept from loading"),
    key("limits.retries", Number { max: 100 }, "2", "further replicas tried before the first byte"),
    key("capture.bodies", Flag, "false", "whether the request log keeps bodies"),
    key("workflow.allow_run", Flag, "false", "whether submitted workflows may run commands"),
    unset(
        "workflow.provider",
        Text,
        "whom workflows ask that name no provider; the home's gateway if not set",
    ),
];

/// Keys of one `[providers.<name>]`, with their meanings.
pub(super) const PROVIDER_KEYS: &[(&str, &str)] = &[
    ("kind", "the API it speaks"),
    ("base_url", "where it answers"),
    ("api_key_env", "environment variable that holds its key"),
    ("models", "models it serves"),
];

/// Keys of one `[routes.<name>]`, with their meanings.
pub(super) const ROUTE_KEYS: &[(&str, &str)] = &[
    (
        "to",
        "where a request may go, tried in this order: instances, aliases, or provider/model; absent: its own name",
    ),
    ("set", "fields that every request gets, whatever it says itself"),
    ("default", "fields for requests that do not say anything else"),
    ("strip", "fields that are taken out of every request"),
];

pub(super) const PROVIDER_KINDS: &[&str] =
    &["openai", "anthropic", "ollama", "vllm", "tgi", "mlx", "openai_compatible"];
