//! What can be typed. What it means is decided by the commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use orch_core::{EventLevel, EventType, InstanceName, ReplicaId};

use crate::words::{Since, parse_duration};

/// Run many llama.cpp servers the way people run containers, behind one OpenAI- and Anthropic-compatible API.
#[derive(Debug, Parser)]
#[command(name = "llama-orch", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalArguments,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct GlobalArguments {
    /// The home folder [default: LLAMA_ORCH_HOME, the nearest home above, or the platform's data folder]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub home: Option<PathBuf>,
    /// A control plane elsewhere, as http://host:port [default: ORCHESTRATORD_URL, or the home's own daemon]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub server: Option<String>,
    /// Print one JSON document, or one object a line for streams
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say more; twice: log what the libraries do
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say nothing but the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// When to use colour; NO_COLOR switches it off as well
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// From nothing to a first answer: engine, model, instance, daemon, one chat
    Quickstart(QuickstartArguments),
    /// Write the config of a new instance
    Init(InitArguments),
    /// Start instances and wait until they are ready
    Up(UpArguments),
    /// Stop instances; they stay down
    Down(DownArguments),
    /// Stop and start instances; stopped ones are started
    Restart(RestartArguments),
    /// Remove stopped instances
    Rm(RmArguments),
    /// List instances
    Ps(PsArguments),
    /// Ask engines how they are, now
    Health(HealthArguments),
    /// Show an engine's output
    Logs(LogsArguments),
    /// Tell all about one instance
    Describe {
        /// Instance: uid, number, name or display name
        name: String,
    },
    /// Tell what happened
    Events(EventsArguments),
    /// Check, show and change instance configs
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// The daemon: supervision of instances, and the gateway
    Daemon {
        #[command(subcommand)]
        action: DaemonAction,
    },
    /// Installed llama-server versions
    #[command(visible_alias = "binary")]
    Engine {
        #[command(subcommand)]
        action: EngineAction,
    },
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct QuickstartArguments {
    /// A GGUF file, or hf:owner/repository[:file.gguf] [default: a small instruct model]
    #[arg(long, value_name = "REF")]
    pub model: Option<String>,
    /// The engine: a llama-server executable or its folder, or a version to install
    #[arg(long, value_name = "PATH|VERSION")]
    pub engine: Option<String>,
    /// Port of the instance [default: a free one from 8001 on]
    #[arg(long, value_name = "N", value_parser = instance_port)]
    pub port: Option<u16>,
    /// End what an earlier quickstart started
    #[arg(long, conflicts_with_all = ["model", "engine", "port"])]
    pub stop: bool,
}

#[derive(Debug, Args)]
pub struct InitArguments {
    /// Name: 1 to 64 of a-z 0-9 _ -
    pub name: InstanceName,
    /// The model: a GGUF file
    #[arg(long, value_name = "REF")]
    pub model: String,
    /// Port, or auto: the first from 8001 on that no config claims and nobody listens on
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = port_or_auto)]
    pub port: PortArgument,
    /// What it computes on
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendArgument,
    /// Device of the backend, counted from 0
    #[arg(long, value_name = "N")]
    pub device: Option<u32>,
    /// Layers on the device [default: none on the cpu, all elsewhere]
    #[arg(long, value_name = "N")]
    pub layers: Option<u32>,
    /// Tokens of context, shared by the slots
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,
    /// CPU threads; 8 when absent
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Starting point: chat, shared, embedding, rerank
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Replace the config of that name
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortArgument {
    Fixed(u16),
    Auto,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendArgument {
    /// The best that the engine lists a device for
    #[default]
    Auto,
    Cpu,
    Vulkan,
    Cuda,
    Metal,
    Hip,
}

/// Which instances a step is for.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Instances: uid, number, name or display name
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "tag"])]
    pub names: Vec<String>,
    /// All instances
    #[arg(long, conflicts_with_all = ["names", "tag"])]
    pub all: bool,
    /// All instances with this tag
    #[arg(long, value_name = "T", conflicts_with = "names")]
    pub tag: Option<String>,
}

/// How a start is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub struct StartWait {
    /// Return as soon as the engine is started
    #[arg(long)]
    pub no_wait: bool,
    /// Seconds to wait until ready; the engine is left running then
    #[arg(long, value_name = "S", default_value = "120", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl StartWait {
    pub fn limit(self) -> Option<Duration> {
        (!self.no_wait).then_some(self.timeout)
    }
}

#[derive(Debug, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub wait: StartWait,
    /// Stay, show the output, and stop the instances at Ctrl-C
    #[arg(long, conflicts_with = "no_wait")]
    pub no_detach: bool,
    /// Print the command line and the variables instead of starting
    #[arg(long)]
    pub dry_run: bool,
    /// End the llama-orch process that holds an instance's lock
    #[arg(long)]
    pub force_unlock: bool,
}

#[derive(Debug, Args)]
pub struct DownArguments {
    #[command(flatten)]
    pub selection: Selection,
    /// Kill at once
    #[arg(long)]
    pub force: bool,
    /// Seconds that requests in flight may take to finish
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_duration)]
    pub timeout: Duration,
    /// End the llama-orch process that holds an instance's lock
    #[arg(long)]
    pub force_unlock: bool,
}

#[derive(Debug, Args)]
pub struct RestartArguments {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub wait: StartWait,
    /// Kill at once
    #[arg(long)]
    pub force: bool,
    /// End the llama-orch process that holds an instance's lock
    #[arg(long)]
    pub force_unlock: bool,
}

#[derive(Debug, Args)]
pub struct RmArguments {
    /// Instances: uid, number, name or display name
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Stop it first
    #[arg(long)]
    pub force: bool,
    /// Leave its logs
    #[arg(long)]
    pub keep_logs: bool,
}

#[derive(Debug, Args)]
pub struct PsArguments {
    /// Also those whose config cannot be used
    #[arg(short, long)]
    pub all: bool,
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
}

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

#[derive(Debug, Subcommand)]
pub enum EngineAction {
    /// Install a version [default: the newest]
    Install(EngineInstallArguments),
    /// List installed versions
    List,
    /// What an engine is and can do [default: the one that instances use]
    Info {
        /// Version, id or the beginning of an id
        engine: Option<String>,
    },
    /// Make a version the default of this home
    Use {
        /// Version, id or the beginning of an id
        engine: String,
    },
    /// Remove a version
    Remove {
        /// Version, id or the beginning of an id
        engine: String,
        /// Even if an instance uses it
        #[arg(long)]
        force: bool,
    },
    /// The newest release
    Latest,
    /// The devices that an engine can use [default: of the engine that instances use]
    Devices {
        /// Version, id or the beginning of an id
        engine: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct EngineInstallArguments {
    /// Version; with --source path or url the place
    pub version: Option<String>,
    /// Where from: an official release, a build from the Python package, a build of your own, an archive
    #[arg(long, value_enum)]
    pub source: Option<EngineSource>,
    /// Build variant, such as vulkan [default: the plain build for this machine]
    #[arg(long, value_name = "V")]
    pub variant: Option<String>,
    /// SHA-256 checksum that the file must have
    #[arg(long, value_name = "H")]
    pub sha256: Option<String>,
    /// Make it the default of this home
    #[arg(long)]
    pub set_default: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineSource {
    Github,
    Pypi,
    Path,
    Url,
}

fn instance_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ (0 | 1024..)) => Ok(port),
        _ => Err("is 0 (chosen at each start) or 1024 to 65535".to_owned()),
    }
}

fn port_or_auto(text: &str) -> Result<PortArgument, String> {
    if text == "auto" {
        return Ok(PortArgument::Auto);
    }
    instance_port(text)
        .map(PortArgument::Fixed)
        .map_err(|_| "is auto, 0 (chosen at each start) or 1024 to 65535".to_owned())
}

fn replica(text: &str) -> Result<ReplicaId, String> {
    let digits = text.strip_prefix('r').unwrap_or(text);
    digits.parse().map(ReplicaId).map_err(|_| "is the number of a replica, counted from 0".to_owned())
}

fn event_level(text: &str) -> Result<EventLevel, String> {
    EventLevel::from_label(text).ok_or_else(|| format!("is one of {}", labels(EventLevel::ALL)))
}

fn event_type(text: &str) -> Result<EventType, String> {
    EventType::from_label(text).ok_or_else(|| format!("is one of {}", labels(EventType::ALL)))
}

fn labels(all: &[impl std::fmt::Display]) -> String {
    all.iter().map(|one| format!("{one}")).collect::<Vec<_>>().join(", ")
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(field, _)| !field.is_empty());
    parts
        .map(|(field, value)| (field.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as field=value".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        for line in ["llama-orch --json ps", "llama-orch ps --json"] {
            assert!(parse(line).unwrap().global.json);
        }
    }

    #[test]
    fn a_step_needs_names_or_all_or_a_tag() {
        for bad in
            ["llama-orch up", "llama-orch down a --all", "llama-orch up --all --tag t", "llama-orch rm"]
        {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        for good in ["llama-orch up a b", "llama-orch down --all", "llama-orch restart --tag t"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn logs_of_an_instance_and_cleaning_them_are_told_apart() {
        let Command::Logs(logs) = parse("llama-orch logs chat -f -n 5").unwrap().command else { panic!() };
        assert_eq!((logs.name.as_deref(), logs.tail, logs.follow), (Some("chat"), 5, true));
        let Command::Logs(clean) = parse("llama-orch logs clean a b --older-than 2h").unwrap().command else {
            panic!()
        };
        let Some(LogsAction::Clean { names, older_than }) = clean.action else { panic!() };
        assert_eq!((names.len(), older_than), (2, Duration::from_secs(7200)));
        assert!(parse("llama-orch logs").is_err());
    }

    #[test]
    fn an_instance_cannot_listen_where_only_the_system_may() {
        assert!(parse("llama-orch init a --model m.gguf --port 80").is_err());
        assert!(parse("llama-orch init a --model m.gguf --port auto").is_ok());
    }
}
