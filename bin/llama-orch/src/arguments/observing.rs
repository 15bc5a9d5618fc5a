//! Looks at instances: list, health, output, events.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use orch_core::{EventLevel, EventType, ReplicaId};

use super::parsers::{event_level, event_type, replica};
use crate::words::{Since, parse_duration};

#[derive(Debug, Args)]
pub struct PsArguments {
    /// Also those whose config cannot be used and of which nothing runs
    #[arg(short, long)]
    pub all: bool,
    /// Also the node that each replica is on
    #[arg(long)]
    pub nodes: bool,
    /// Show it again each second
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct HealthArguments {
    /// Instance: uid, number, name or display name [default: all that are not stopped]
    #[arg(conflicts_with = "all")]
    pub name: Option<String>,
    /// Also stopped instances
    #[arg(long)]
    pub all: bool,
    /// Ask again each second
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Show it again each second
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Subcommand)]
pub enum GpuAction {
    /// List host and devices with what is usable, free and held
    List,
}

#[derive(Debug, Subcommand)]
pub enum NodeAction {
    /// List nodes with their state and instances
    List,
    /// Send nothing new to a node: requests wait, and those under way go on
    Cordon {
        /// Node [default: the only one]
        node: Option<String>,
    },
    /// Send requests to a node again
    Uncordon {
        /// Node [default: the only one]
        node: Option<String>,
    },
    /// Cordon a node and wait until nothing is under way there; engines stay loaded
    Drain {
        /// Node [default: the only one]
        node: Option<String>,
        /// Cut off what is under way after so long [default: limits.drain_s]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        deadline: Option<Duration>,
    },
}

#[derive(Debug, Args)]
pub struct DashboardArguments {
    /// Show events of this instance only
    #[arg(long, value_name = "NAME")]
    pub events_for: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LogsArguments {
    #[command(subcommand)]
    pub action: Option<LogsAction>,
    /// Instance: uid, number, name or display name
    #[arg(required = true)]
    pub name: Option<String>,
    /// The last so many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub tail: usize,
    /// Go on with what comes, across rotations and restarts
    #[arg(short, long)]
    pub follow: bool,
    #[arg(long, value_enum, default_value_t)]
    pub stream: StreamArgument,
    /// Nothing older: 10m, 2h, 7d or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "T", value_parser = Since::parse)]
    pub(crate) since: Option<Since>,
    /// Number of the replica
    #[arg(long, value_name = "N", value_parser = replica)]
    pub replica: Option<ReplicaId>,
}

#[derive(Debug, Subcommand)]
pub enum LogsAction {
    /// Remove old log files
    Clean {
        /// Instances [default: all]
        names: Vec<String>,
        /// Age of what goes
        #[arg(long, value_name = "D", default_value = "7d", value_parser = parse_duration)]
        older_than: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StreamArgument {
    Stdout,
    Stderr,
    #[default]
    Both,
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Of this instance only
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// This level and above: info, warning, error
    #[arg(long, value_parser = event_level)]
    pub level: Option<EventLevel>,
    /// Of this type only
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    pub event_type: Option<EventType>,
    /// Nothing older: 10m, 2h, 7d or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "T", value_parser = Since::parse)]
    pub(crate) since: Option<Since>,
    /// Go on with what comes, oldest first
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the newest events are shown
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}
