//! An instance config with every default filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use orch_core::{DesiredState, InstanceName, RestartBackoff, redact_args, redact_env_value};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{FIELDS, Field};

/// One instance: everything its file says, coerced to strict types, and the default for all it leaves out.
///
/// Serialising gives the effective config in the file's own shape, secrets included; what people see goes through
/// [`InstanceConfig::shown`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceConfig {
    pub name: InstanceName,
    pub schema_version: String,
    /// A file without one gets a stand-in that depends on its name alone, until it is written back.
    pub instance_uid: Uuid,
    pub instance_no: Option<String>,
    pub display_name: String,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub tags: Vec<String>,
    pub binary: Binary,
    pub model: Model,
    pub server: Server,
    pub gpu: Gpu,
    pub env: BTreeMap<String, String>,
    pub args: Vec<String>,
    pub healthcheck: HealthCheck,
    pub restart_policy: RestartPolicy,
    pub logs: Logs,
    pub lifecycle: Lifecycle,
    pub replicas: Replicas,
    pub aliases: Vec<String>,
}

/// Which engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    pub binary_id: Option<Uuid>,
    pub version: Option<String>,
    pub variant: Option<String>,
    pub source_url: Option<String>,
    pub sha256: Option<String>,
}

impl Binary {
    /// Whether exactly one engine will do. Another one is then never taken in its place.
    pub fn is_pinned(&self) -> bool {
        self.binary_id.is_some() || self.version.as_deref().is_some_and(|version| version != "latest")
    }
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// As written: see [`crate::resolve_model_path`].
    pub path: String,
    /// Tokens, shared by the slots.
    pub context_size: u32,
    pub batch_size: u32,
    pub threads: u32,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub host: String,
    /// 0 = a free one at each start.
    pub port: u16,
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// Slots.
    pub parallel: u16,
}

/// What it computes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    pub backend: Backend,
    /// None = all devices.
    pub device_id: Option<u32>,
    /// 999 = all.
    pub layers: u32,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word in the config.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.label())
            }
        }
    };
}

words! {
    Backend { Cpu = "cpu", Vulkan = "vulkan", Cuda = "cuda", Metal = "metal", Hip = "hip", }
}

words! {
    /// How health is probed.
    HealthCheckType { Http = "http", Tcp = "tcp", Custom = "custom", }
}

words! {
    /// Who loads the model: `up`, the first request, or the daemon.
    LoadMode { Manual = "manual", OnDemand = "on_demand", Always = "always", }
}

impl LoadMode {
    /// What is wanted of an instance about which nobody has said anything yet.
    pub const fn desired_default(self) -> DesiredState {
        match self {
            LoadMode::Manual => DesiredState::Stopped,
            LoadMode::OnDemand => DesiredState::OnDemand,
            LoadMode::Always => DesiredState::Running,
        }
    }
}

/// How its health is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthCheck {
    #[serde(rename = "type")]
    pub kind: HealthCheckType,
    pub path: String,
    pub expected_status: Vec<u16>,
    pub expected_body: Option<String>,
    pub custom_script: Option<String>,
    #[serde(with = "seconds")]
    pub interval: Duration,
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// Consecutive failures before a restart.
    pub retries: u32,
    #[serde(with = "seconds")]
    pub retry_delay: Duration,
    #[serde(with = "seconds")]
    pub start_period: Duration,
    #[serde(with = "seconds")]
    pub load_stall: Duration,
    pub backoff_enabled: bool,
    #[serde(with = "seconds")]
    pub backoff_base: Duration,
    #[serde(with = "seconds")]
    pub backoff_max: Duration,
    pub backoff_jitter: f64,
    pub warmup_enabled: bool,
    pub warmup_prompt: String,
}

impl HealthCheck {
    /// The delay that probing adds while unhealthy; none when switched off. Each failure doubles it.
    pub fn backoff(&self) -> Option<RestartBackoff> {
        self.backoff_enabled.then_some(RestartBackoff {
            initial: self.backoff_base,
            max: self.backoff_max,
            multiplier: 2.0,
            jitter: self.backoff_jitter,
        })
    }
}

/// What happens when it ends by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub enabled: bool,
    pub max_retries: u32,
    #[serde(with = "seconds")]
    pub initial_delay: Duration,
    #[serde(with = "seconds")]
    pub max_delay: Duration,
    pub backoff_multiplier: f64,
    pub jitter: f64,
}

impl RestartPolicy {
    pub fn backoff(&self) -> RestartBackoff {
        RestartBackoff {
            initial: self.initial_delay,
            max: self.max_delay,
            multiplier: self.backoff_multiplier,
            jitter: self.jitter,
        }
    }
}

/// Where its output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Templates: see [`crate::log_path`].
    pub stdout: String,
    pub stderr: String,
    pub max_size_mb: u64,
    pub rotation: u32,
    pub retention_days: u32,
}

impl Logs {
    /// Bytes at which a log is rotated.
    pub const fn max_bytes(&self) -> u64 {
        self.max_size_mb * 1024 * 1024
    }
}

/// When it is loaded and unloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub load: LoadMode,
    /// Zero = never unloaded for idleness.
    #[serde(with = "seconds")]
    pub idle_ttl: Duration,
    pub group: Option<String>,
    pub pin: bool,
}

/// How many engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    Count(u16),
    /// One pinned to each device of the backend.
    PerDevice,
}

impl Serialize for Replicas {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Replicas::Count(count) => serializer.serialize_u16(*count),
            Replicas::PerDevice => serializer.serialize_str("per_device"),
        }
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u16),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Replicas::Count(count)),
            Written::Word(word) if word == "per_device" => Ok(Replicas::PerDevice),
            Written::Word(_) => Err(serde::de::Error::custom("replicas is a number or per_device")),
        }
    }
}

impl InstanceConfig {
    /// The effective config as people may see it: secrets in `args` and `env` are masked.
    pub fn shown(&self) -> Value {
        let mut shown = self.clone();
        shown.args = redact_args(&self.args);
        for (name, value) in &mut shown.env {
            *value = redact_env_value(name, value).to_owned();
        }
        shown.to_value()
    }

    /// The effective config, secrets included.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a config holds only texts, finite numbers and text keys")
    }

    /// The effective value of one field.
    fn value_of<'a>(document: &'a Value, field: &Field) -> &'a Value {
        let (section, key) = field.parts();
        let holder = section.map_or(Some(document), |section| document.get(section));
        holder.and_then(|holder| holder.get(key)).unwrap_or(&Value::Null)
    }

    /// Every typed field with its effective value, in the order of the table.
    pub(crate) fn values(document: &Value) -> impl Iterator<Item = (&'static Field, &Value)> {
        FIELDS
            .iter()
            .filter(|field| !matches!(field.kind, crate::Kind::Anything))
            .map(move |field| (field, Self::value_of(document, field)))
    }
}

/// Shows masked values only: configs end up in logs.
impl fmt::Debug for InstanceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceConfig {}", self.shown())
    }
}

/// Durations are seconds in the file, whole ones without a fraction.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos() == 0 {
            serializer.serialize_u64(duration.as_secs())
        } else {
            serializer.serialize_f64(duration.as_secs_f64())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
