//! Instance configs: one JSON file an instance, read liberally, written strictly, checked thoroughly, and turned
//! into an engine's command line and environment.
//!
//! This crate deliberately knows no process, no database and no network. Whether a port is free, which engine is
//! installed and what time it is are facts that the caller brings; reading never writes.
//!
//! Read first: [`InstanceConfig`], a config with every default filled in, and [`Field`], the table from which
//! reading, defaults, ranges, the JSON Schema and the config hash are made.

mod access;
mod api_key;
mod arguments;
mod catalog;
mod command;
mod config;
mod create;
mod document;
mod endpoint_arguments;
mod environment;
mod field;
mod finding;
mod flags;
mod gguf;
mod hash;
pub mod home;
mod kind;
mod lint;
mod loaded;
mod log_files;
mod memory;
mod migration;
mod model_file;
mod nearest;
mod patch;
mod reader;
mod replicas;
mod schema;
mod template;

pub use api_key::api_key;
pub use catalog::{BrokenInstance, Catalog, Claim, discover, load_file};
pub use command::{EngineCommand, device_mask, engine_command, may_sleep};
pub use config::{
    Backend, Binary, Gpu, HealthCheck, HealthCheckType, InstanceConfig, Lifecycle, LoadMode, Logs, Model,
    Replicas, RestartPolicy, Server,
};
pub use create::{NewInstance, PortChoice, create, model_field};
pub use environment::{engine_environment, is_inherited};
pub use field::{FIELDS, Field, Preset, Reach};
pub use finding::{Finding, Report, Severity};
pub use hash::{config_hash, restart_needed};
pub use kind::Kind;
pub use lint::{EngineFact, LintFacts, lint, lint_instance};
pub use loaded::{EffectiveValue, LoadedInstance, Origin, save};
pub use log_files::log_path;
pub use memory::{MemoryEstimate, MemoryShare, Place, estimate_memory};
pub use migration::{Change, ConfigPlan, KnownInstance, MigrationPlan, plan_migration};
pub use model_file::{check_model, resolve_model_path, weight_files};
pub use patch::{create_from, refuse_claimed_port};
pub use schema::json_schema;
pub use template::{TEMPLATES, Template, find_template};
