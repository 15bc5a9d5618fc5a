//! Steps on instances: make, start, stop, remove.

use std::time::Duration;

use clap::{Args, ValueEnum};
use orch_core::InstanceName;

use super::parsers::{assignment, instance_port};
use crate::words::parse_duration;

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
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = PortArgument::parse)]
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
    /// Tokens of context, shared by the slots [default: 4096, or the model's own if that is less]
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,
    /// CPU threads [default: the physical cores, at most 8 beside a GPU]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Starting point: chat, shared, embedding, rerank; cpu, vulkan, cuda, metal, hip
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

impl PortArgument {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        instance_port(text)
            .map(Self::Fixed)
            .map_err(|_| "is auto, 0 (chosen at each start) or 1024 to 65535".to_owned())
    }
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

/// How many replicas an instance is to have.
#[derive(Clone, Debug)]
pub struct Scale {
    pub name: String,
    /// As a config has it: a number, or `per_device`.
    pub replicas: String,
}

impl Scale {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, replicas) = assignment(text).map_err(|_| "write it as name=number".to_owned())?;
        Ok(Self { name, replicas })
    }
}

#[derive(Debug, Args)]
#[command(mut_arg("names", |names| names.required_unless_present_any(["all", "tag", "scale"])))]
pub struct UpArguments {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub wait: StartWait,
    /// Write to the config of NAME how many replicas it has (1 to 64, or per_device), then start what is missing and
    /// end what is too many
    #[arg(long, value_name = "NAME=N", value_parser = Scale::parse)]
    pub scale: Vec<Scale>,
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
