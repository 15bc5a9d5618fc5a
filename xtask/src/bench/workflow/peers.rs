//! Other workflow engines on the same graphs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::python_in;

use super::shapes::Shape;
use crate::bench::programs;

/// Steps at once, for everybody who can.
pub(super) const AT_ONCE: &str = "4";

/// What is asked of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// A first run.
    Fresh(Shape),
    /// A chain once more, with nothing to do.
    Again,
    /// A chain whose last step is not done yet.
    Resume,
}

impl Task {
    pub(super) const ALL: [Task; 6] = [
        Task::Fresh(Shape::Wide),
        Task::Fresh(Shape::Chain),
        Task::Fresh(Shape::Layers),
        Task::Fresh(Shape::Diamond),
        Task::Again,
        Task::Resume,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Fresh(shape) => shape.word(),
            Self::Again => "cached",
            Self::Resume => "resume",
        }
    }

    pub(super) const fn shape(self) -> Shape {
        match self {
            Self::Fresh(shape) => shape,
            Self::Again | Self::Resume => Shape::Chain,
        }
    }
}

/// One of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Make,
    Ninja,
    LangGraph,
    Dask,
    Luigi,
}

impl Peer {
    pub(super) const ALL: [Peer; 5] = [Self::Make, Self::Ninja, Self::LangGraph, Self::Dask, Self::Luigi];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Ninja => "ninja",
            Self::LangGraph => "LangGraph + SQLite",
            Self::Dask => "Dask",
            Self::Luigi => "Luigi",
        }
    }

    /// Whether it can take part: make is the system's, the others are installed beside.
    pub(super) fn is_there(self) -> bool {
        self != Self::Make || programs::is_there("make", "make", "--version")
    }

    /// How many steps it is given: those whose time grows with the square of the steps would take hours.
    pub(super) fn steps(self, steps: usize) -> usize {
        match self {
            Self::Make | Self::Ninja | Self::Dask => steps,
            Self::LangGraph | Self::Luigi => steps.min(1000),
        }
    }

    /// Dask keeps nothing between runs. LangGraph's checkpoint of a finished thread holds no results to go back to.
    pub(super) fn can(self, task: Task) -> bool {
        match task {
            Task::Fresh(_) => true,
            Task::Again => !matches!(self, Self::Dask | Self::LangGraph),
            Task::Resume => self != Self::Dask,
        }
    }

    /// Does the task once in an empty folder.
    pub(super) fn measure(self, task: Task, steps: usize, environment: &Path) -> Result<Duration> {
        let folder = tempfile::tempdir().context("there is no temporary folder")?;
        let steps = self.steps(steps);
        match self {
            Self::Make => {
                files(task, steps, folder.path(), "Makefile", &task.shape().makefile(steps), "make")
            }
            Self::Ninja => {
                let program = ninja_in(environment);
                let text = task.shape().ninja(steps);
                files(task, steps, folder.path(), "build.ninja", &text, &program.to_string_lossy())
            }
            Self::LangGraph => python("langgraph", task, steps, folder.path(), environment),
            Self::Dask => python("dask", task, steps, folder.path(), environment),
            Self::Luigi => python("luigi", task, steps, folder.path(), environment),
        }
    }
}

fn ninja_in(environment: &Path) -> PathBuf {
    environment.join("bin").join("ninja")
}

/// make and ninja: a step is a process that leaves a file. The whole command's time.
fn files(task: Task, steps: usize, folder: &Path, name: &str, text: &str, program: &str) -> Result<Duration> {
    fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    if matches!(task, Task::Fresh(_)) {
        return build(program, folder);
    }
    build(program, folder)?;
    if task == Task::Resume {
        fs::remove_file(folder.join(format!("s{}", steps - 1))).context("the last step left no file")?;
    }
    build(program, folder)
}

fn build(program: &str, folder: &Path) -> Result<Duration> {
    let mut command = Command::new(program);
    command.args(["-j", AT_ONCE]).current_dir(folder).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("{program} does not start"))?;
    let elapsed = begin.elapsed();
    ensure!(status.success(), "{program} failed: {status}");
    Ok(elapsed)
}

/// The ones in Python tell the time of the run alone: loading them takes a second or more.
fn python(peer: &str, task: Task, steps: usize, folder: &Path, environment: &Path) -> Result<Duration> {
    let script = folder.join("peers.py");
    fs::write(&script, include_str!("peers.py")).context("cannot write the script")?;
    let mut command = Command::new(python_in(environment));
    command.arg(&script).args([peer, task.word(), &steps.to_string()]).arg(folder);
    let output = command.output().with_context(|| format!("{peer} does not start"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let seconds = said.lines().find_map(|line| line.strip_prefix("seconds ")?.parse().ok());
    let complaint = || format!("{peer} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(Duration::from_secs_f64(seconds.with_context(complaint)?))
}
