//! llama-orch as a user runs it: the whole command, from its start to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testkit::TempHome;

use crate::bench::usage::{self, Usage};

/// A home of its own with the release build's commands.
pub(super) struct Ours {
    home: TempHome,
    program: PathBuf,
    provider: Option<String>,
}

impl Ours {
    pub(super) fn new(program: &Path) -> Self {
        Self { home: TempHome::new(), program: program.to_path_buf(), provider: None }
    }

    /// With models at this address, which speaks OpenAI's protocol.
    pub(super) fn with_provider(program: &Path, address: &str) -> Self {
        Self { provider: Some(format!("{address}/v1")), ..Self::new(program) }
    }

    /// Writes a spec into the home and gives its path.
    pub(super) fn spec(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// `run --spec` with more arguments, which must end well.
    pub(super) fn run(&self, spec: &Path, more: &[&str]) -> Result<Duration> {
        let (wall, output) = self.end_of(spec, more)?;
        ensure!(output.status.success(), "run failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(wall)
    }

    /// One that is meant to fail: a step of it is refused.
    pub(super) fn run_into_failure(&self, spec: &Path, more: &[&str]) -> Result<()> {
        let (_, output) = self.end_of(spec, more)?;
        match output.status.code() {
            Some(70) => Ok(()),
            other => bail!("the job was to fail, and ended with {other:?}"),
        }
    }

    /// Fresh jobs one after the other, and the most memory that one of them had.
    pub(super) fn usage(&self, spec: &Path, more: &[&str], count: usize) -> Result<Usage> {
        let spec = spec.to_str().context("temporary folders have plain names")?;
        let mut arguments = vec!["-q", "run", "--spec", spec];
        arguments.extend(more);
        usage::measure(&self.program, &arguments, count, |command| self.prepare(command))
    }

    fn end_of(&self, spec: &Path, more: &[&str]) -> Result<(Duration, Output)> {
        let mut command = Command::new(&self.program);
        command.args(["-q", "run", "--spec"]).arg(spec).args(more).stdin(Stdio::null());
        self.prepare(&mut command);
        let begin = Instant::now();
        let output =
            command.output().with_context(|| format!("{} does not start", self.program.display()))?;
        Ok((begin.elapsed(), output))
    }

    fn prepare(&self, command: &mut Command) {
        for name in ["LLAMA_ORCH_LOG", "ORCHESTRATORD_URL"] {
            command.env_remove(name);
        }
        command.env("LLAMA_ORCH_HOME", self.home.path());
        if let Some(base) = &self.provider {
            command.env("PROVIDER", "openai").env("OPENAI_BASE_URL", base).env("OPENAI_API_KEY", "none");
        }
    }
}
