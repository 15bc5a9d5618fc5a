//! Running workflows.

use clap::{Args, ValueEnum};

use super::parsers::assignment;

#[derive(Debug, Args)]
pub struct RunArguments {
    /// The workflow: a YAML or JSON file; `-` reads it from stdin
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    pub spec: Option<String>,
    /// The job's name [default: made of the project's name]
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// Go on with a job, by id or `last` [default: the newest of the spec's project]
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    pub resume: Option<Option<String>>,
    /// Steps at once; goes before the spec's own limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: Option<u32>,
    /// Whom to ask where the spec names nobody: local, ollama, openai, anthropic, mlx, or one of config.toml
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    #[command(flatten)]
    pub inputs: InputArguments,
    /// Neither take results from other jobs nor offer any
    #[arg(long)]
    pub no_cache: bool,
    /// When a step counts: at once, with its record on disk within 20 ms, or only after that
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub journal: JournalChoice,
    /// Check everything and show what would run, in which order; touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Let the daemon, or the control plane that --server names, carry it out, and follow it here
    #[arg(long, conflicts_with = "dry_run")]
    pub submit: bool,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The workflow: a YAML or JSON file; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub spec: String,
    /// Whom to ask where the spec names nobody
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Steps at once; goes before the spec's own limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: Option<u32>,
    #[command(flatten)]
    pub inputs: InputArguments,
}

#[derive(Debug, Args)]
pub struct InputArguments {
    /// An input of the workflow; may be given again and again
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    pub vars: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JournalChoice {
    #[default]
    Relaxed,
    Strict,
}
