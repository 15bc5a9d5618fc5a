//! Shows a workflow's graph.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct GraphArguments {
    /// The workflow: a YAML or JSON file; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub spec: String,
    /// As a list for people, or for Graphviz: `llama-orch graph --spec job.yaml --format dot | dot -Tsvg`
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: GraphFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    #[default]
    Text,
    Dot,
}
