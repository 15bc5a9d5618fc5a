//! `config`: check, show and change instance configs.

use clap::{Subcommand, ValueEnum};

use super::parsers::assignment;

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Check one config, or all of the home
    Validate {
        /// A config file, or an instance [default: all]
        path: Option<String>,
        /// Also against this machine: engines, devices, ports in use
        #[arg(long)]
        runtime: bool,
    },
    /// Everything that may be wrong with the configs of the home
    Lint,
    /// The effective config, and where each value comes from
    Show {
        /// Instance: uid, number, name or display name
        name: String,
    },
    /// JSON Schema for editors
    Schema {
        #[arg(long, value_enum, default_value_t)]
        kind: SchemaKind,
    },
    /// Make the folders and the state database of the home
    Init {
        /// Make the database anew; the old one is kept as a backup
        #[arg(long)]
        force: bool,
    },
    /// Bring configs and engines of an older home up to date; shows what would change
    Migrate {
        /// Do it; each old config is kept beside the new one
        #[arg(long)]
        apply: bool,
    },
    /// Change fields of an instance
    Set {
        /// Instance: uid, number, name or display name
        name: String,
        /// As server.port=8005 or env.NAME=value; an empty variable is removed, null means the default
        #[arg(required = true, value_name = "FIELD=VALUE", value_parser = assignment)]
        assignments: Vec<(String, String)>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// instances/NAME/config.json
    #[default]
    Instance,
    /// config.toml
    Home,
    /// A workflow
    Job,
}
