//! `daemon`: supervision of instances, and the gateway.

use clap::Subcommand;

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
}
