//! Instances: how they are, and how starting, stopping and removing one is meant.

use orch_core::{DesiredState, Health, ReplicaId, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::shape::{desired_state_schema, health_schema, replica_schema, status_schema};

/// Slots of a replica as the gateway sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slots {
    /// Free for a request.
    pub idle: u32,
    /// At work on a request.
    pub busy: u32,
}

/// One row of `ps`; the names of the fields are a contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// The instance.
    pub name: String,
    /// Which of its engines.
    #[schema(schema_with = replica_schema)]
    pub replica_id: ReplicaId,
    /// What people call it.
    pub display_name: String,
    /// Its identity, whatever its name.
    pub uid: String,
    /// The engine's process, while there is one.
    pub pid: Option<u32>,
    /// The port in use, or the configured one; 0 = chosen at the next start.
    pub port: u16,
    /// The address that the engine binds.
    pub host: String,
    /// What it computes on.
    pub backend: String,
    /// The configured device; `null` = all, or the CPU.
    pub device: Option<u32>,
    /// The model as the config names it.
    pub model: String,
    /// What its process does.
    #[schema(schema_with = status_schema)]
    pub status: Status,
    /// What the last probes said.
    #[schema(schema_with = health_schema)]
    pub health: Health,
    /// What is wanted of it.
    #[schema(schema_with = desired_state_schema)]
    pub desired_state: DesiredState,
    /// Seconds since its process started.
    pub uptime_seconds: Option<u64>,
    /// Automatic restarts since the last `up`.
    pub restarts: u32,
    /// RFC 3339; only while the restart policy waits.
    pub next_restart_at: Option<String>,
    /// As the daemon counts them; without one as the engine told when it became ready.
    pub slots: Option<Slots>,
    /// Of the engine that runs, or ran last.
    pub engine_version: Option<String>,
    /// The node that it is on.
    pub node_id: String,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// How its process ended last.
    pub last_exit_code: Option<i32>,
    /// The config changed in a way that the running engine has not heard of.
    pub restart_needed: bool,
    /// Why nobody may look at its process, which is taken for ours all the same. Told by whoever has looked, and never
    /// passed on.
    #[serde(skip)]
    pub denied: Option<String>,
}

/// How `start` is meant; all optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartRequest {
    /// Fail when it runs or starts already, instead of leaving it so.
    pub expect_change: bool,
}

/// How `stop` and `restart` are meant; all optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Straight to the end.
    pub force: bool,
    /// How long requests in flight may take to finish.
    pub drain_ms: u64,
    /// Fail when it is stopped already, instead of leaving it so.
    pub expect_change: bool,
}

/// How removing is meant: parameters of the query, all optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveRequest {
    /// Also a running one.
    pub force: bool,
    /// Leave its logs.
    pub keep_logs: bool,
}

/// An instance config, or a merge patch of one (RFC 7396): `llama-orch config schema` tells its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct ConfigDocument(pub Map<String, Value>);

/// What became of a config that was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceChange {
    /// The instance.
    pub name: String,
    /// Its file.
    pub path: String,
    /// The fields that the request named.
    pub fields: Vec<String>,
    /// The running engine hears of it only at its next start.
    pub restart_needed: bool,
    /// What is worth knowing about the config: severity, field, message, suggestion.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Value>,
}

/// One line that an engine wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was seen in the file, RFC 3339; `null` where nobody kept the time.
    pub ts: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Without its line end.
    pub text: String,
}
