//! What can be typed. What it means is decided by the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod config;
mod daemon;
mod engine;
mod graph;
mod instances;
mod observing;
mod parsers;
mod requests;
mod runs;
mod token;
mod workflow;

pub use config::*;
pub use daemon::*;
pub use engine::*;
pub use graph::*;
pub use instances::*;
pub use observing::*;
pub use requests::*;
pub use runs::*;
pub use token::*;
pub use workflow::*;

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
    /// A control plane elsewhere, as http://host:port or https://host:port [default: ORCHESTRATORD_URL, or the home's own daemon]
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
    /// What instances use and do now: processor, memory, slots, tokens a second
    Stats(StatsArguments),
    /// Watch and steer all instances on one screen
    #[command(visible_alias = "top")]
    Dashboard(DashboardArguments),
    /// Show an engine's output
    Logs(LogsArguments),
    /// Tell all about one instance
    Describe {
        /// Instance: uid, number, name or display name
        name: String,
    },
    /// Devices, and who holds how much memory of each
    Gpu {
        #[command(subcommand)]
        action: GpuAction,
    },
    /// Machines with engines, and keeping requests from them
    Node {
        #[command(subcommand)]
        action: NodeAction,
    },
    /// Tell what loading an instance would take, and what would be evicted for it
    PlanLoad {
        /// Instance: uid, number, name or display name
        name: String,
    },
    /// Run a workflow, or go on with one
    Run(RunArguments),
    /// Tell what a workflow would find done, what it would do, and what that is likely to cost
    Plan(PlanArguments),
    /// Tell what happened
    Events(EventsArguments),
    /// List what was asked through the gateway, how it ended and what it took
    Requests(RequestsArguments),
    /// Send a captured request again, to another instance, and compare the answers
    Replay(ReplayArguments),
    /// Show a workflow's steps and what they need, without running anything
    Graph(GraphArguments),
    /// Show a workflow run: its steps, what they took, and what to do next
    Show(ShowArguments),
    /// Show the events of a workflow run
    Tail(TailArguments),
    /// List workflow runs, the newest first
    Jobs,
    /// Answer a gate at which a workflow run waits
    Decide(DecideArguments),
    /// End a workflow run
    Cancel(CancelArguments),
    /// Show why a step of a workflow run ran, or did not: what became different in its request
    Why(WhyArguments),
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
    /// API keys: what each may ask for, and how much
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Look for all that may keep engines from running, and tell how it is mended
    Doctor,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
