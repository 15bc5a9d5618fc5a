//! `daemon`: supervision of instances, and the gateway.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum DaemonAction {
    /// Start it; returns when it answers
    Start {
        /// Stay in the foreground, and log to stderr
        #[arg(long)]
        foreground: bool,
        /// Address to listen on [default: orchestratord.addr of config.toml, or 127.0.0.1:8080]
        #[arg(long, value_name = "HOST:PORT")]
        addr: Option<String>,
    },
    /// Stop it; engines keep running
    Stop,
    /// Stop and start it; engines keep running
    Restart {
        /// Address to listen on [default: orchestratord.addr of config.toml, or 127.0.0.1:8080]
        #[arg(long, value_name = "HOST:PORT")]
        addr: Option<String>,
    },
    /// Whether it runs (exit code 60 when not), and where
    Status,
    /// Make it a service of the system: it starts with the machine, and engines outlive it
    Install(ServiceArguments),
    /// Take the service away; engines, home and logs stay
    Uninstall(ServiceArguments),
}

#[derive(Clone, Debug, Args)]
pub struct ServiceArguments {
    /// For this user alone, from login on; needs no administrator
    #[arg(long)]
    pub user: bool,
    /// Print what would be written and run, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Name of the service
    #[arg(long, value_name = "NAME", default_value = "llama-orch")]
    pub service_name: String,
}
