//! `engine`: installed llama-server versions.

use clap::{Args, Subcommand, ValueEnum};

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
