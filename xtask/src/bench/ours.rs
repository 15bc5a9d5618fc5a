//! llama-orch as a user runs it: its own home, its own commands, seen from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orch_core::{InstanceName, ReplicaId};
use serde_json::{Value, json};
use testkit::{TempHome, free_port, real_llama_server, wait_for_value};

/// A key, so that what is measured includes checking it. It protects nothing: loopback, for minutes.
pub(super) const API_KEY: &str = "key-for-the-time-of-a-benchmark-only";

/// One home with the release build's commands. Whatever it started goes with the home.
pub(super) struct Ours {
    pub(super) home: TempHome,
    program: PathBuf,
    engine: PathBuf,
    port: u16,
}

/// What a ready engine's handoff file says of it.
pub(super) struct Engine {
    pub(super) pid: u32,
    pub(super) shim_pid: u32,
    pub(super) port: u16,
}

impl Ours {
    pub(super) fn new(program: &Path) -> Self {
        Self::with_engine(program, real_llama_server())
    }

    /// With another engine than the real one.
    pub(super) fn with_engine(program: &Path, engine: PathBuf) -> Self {
        Self { home: TempHome::new(), program: program.to_path_buf(), engine, port: free_port() }
    }

    /// Where the gateway listens.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Writes an instance on the tiny model; `more` adds to its sections.
    pub(super) fn write_instance(&self, name: &str, port: u16, parallel: u32, more: &Value) {
        let mut config = json!({
            "name": name,
            "model": {"path": self.home.tiny_model(), "threads": 1, "context_size": 2048},
            "server": {"port": port, "parallel": parallel},
        });
        for (section, value) in more.as_object().into_iter().flatten() {
            config[section] = value.clone();
        }
        self.home.write_instance(name, &config);
    }

    /// A command in this home with nothing inherited that could change what it does.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Gives any command the environment of this home.
    pub(super) fn prepare(&self, command: &mut Command) {
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"));
        command.env("HOME", self.home.scratch()).env("LLAMA_ORCH_HOME", self.home.path());
        command.env("LLAMA_SERVER", &self.engine).env("ORCHESTRATORD_ADDR", self.address());
        command.env("LLORCH_API_TOKEN", API_KEY).env("NO_COLOR", "1").current_dir(self.home.scratch());
    }

    /// Runs a command, which must succeed, and returns how long it took.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Duration> {
        let begin = Instant::now();
        let run = testkit::run(self.command(arguments));
        let elapsed = begin.elapsed();
        ensure!(run.exit_code == Some(0), "llama-orch {}:\n{run}", arguments.join(" "));
        Ok(elapsed)
    }

    /// What a command with `--json` prints.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let run = testkit::run(self.command(arguments));
        ensure!(run.exit_code == Some(0), "llama-orch {}:\n{run}", arguments.join(" "));
        serde_json::from_str(&run.stdout).context("--json prints JSON")
    }

    pub(super) fn daemon_pid(&self) -> Result<u32> {
        let file = read_json(&self.home.layout().daemon_file())?;
        pid_of(&file, "pid")
    }

    /// The engine of an instance that runs: its shim sees it ready by itself, a moment before or after others.
    pub(super) fn running_engine(&self, name: &str) -> Engine {
        wait_for_value("the engine's handoff file", Duration::from_secs(30), || self.engine(name))
    }

    /// The engine of an instance; `None` while it has none that is ready.
    pub(super) fn engine(&self, name: &str) -> Option<Engine> {
        let name = InstanceName::new(name).ok()?;
        let file = read_json(&self.home.layout().handoff(&name, ReplicaId::FIRST)).ok()?;
        let port = file["url"].as_str()?.trim_end_matches('/').rsplit(':').next()?.parse().ok()?;
        Some(Engine { pid: pid_of(&file, "pid").ok()?, shim_pid: pid_of(&file, "shim_pid").ok()?, port })
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
}

fn pid_of(file: &Value, key: &str) -> Result<u32> {
    let pid = file[key].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("the file names no {key}"))
}
