//! The official Python clients of the protocols we speak.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{ProgramRun, cache_folder, run};

/// The packages that [`python_clients`] holds, pinned.
pub const PYTHON_CLIENTS: &[&str] =
    &["openai==3.52.0", "anthropic==2.11.0", "ollama==0.6.3", "litellm==1.83.0"];

/// The proxy that the gateway is measured against, pinned; large, so only the benchmark installs it.
pub const LITELLM_PROXY: &str = "litellm[proxy]==1.83.0";

/// The engines that workflows are measured against, pinned; only the benchmark installs them.
pub const WORKFLOW_PEERS: &[&str] = &[
    "langgraph==1.2.22",
    "langgraph-checkpoint-sqlite==3.1.2",
    "dask==2026.8.0",
    "luigi==3.8.1",
    "ninja==1.13.2",
];

/// Where the cache keeps those; a change of the pins gives a new folder.
pub fn workflow_peers_folder() -> PathBuf {
    cache_folder().join(["workflow", &WORKFLOW_PEERS.join("-").replace("==", "-")].join("-"))
}

/// Where the cache keeps that proxy.
pub fn litellm_proxy_folder() -> PathBuf {
    cache_folder().join(LITELLM_PROXY.replace("==", "-").replace(['[', ']'], "-"))
}

/// Where the cache keeps the clients; a change of the pins gives a new folder.
pub fn python_clients_folder() -> PathBuf {
    cache_folder().join(["python", &PYTHON_CLIENTS.join("-").replace("==", "-")].join("-"))
}

/// The virtual environment with the official clients.
///
/// Panics, saying how to get it, when it is not there.
pub fn python_clients() -> PathBuf {
    let folder = python_clients_folder();
    assert!(python_in(&folder).exists(), "no {}; `cargo xtask setup` puts it there", folder.display());
    folder
}

/// The interpreter of a virtual environment.
pub fn python_in(environment: &Path) -> PathBuf {
    if cfg!(windows) {
        environment.join("Scripts").join("python.exe")
    } else {
        environment.join("bin").join("python")
    }
}

/// Runs a Python script with the official clients at hand, in an environment of nothing but `variables`.
pub fn run_python(script: &str, variables: &[(&str, &str)]) -> ProgramRun {
    let mut command = Command::new(python_in(&python_clients()));
    command.args(["-I", "-c", script]).env_clear().envs(variables.iter().copied());
    // Python on Windows cannot open a socket without it.
    if let Some(root) = std::env::var_os("SystemRoot") {
        command.env("SystemRoot", root);
    }
    run(command)
}
