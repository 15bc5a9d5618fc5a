//! Running a program to its end.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No program that a test waits for takes longer; one that does has failed.
const LIMIT: Duration = Duration::from_mins(2);

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct ProgramRun {
    /// `None` when a signal ended it.
    pub exit_code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl ProgramRun {
    /// Panics, showing everything, unless it ended with `code`.
    #[track_caller]
    pub fn expect_exit(&self, code: i32) -> &Self {
        assert!(self.exit_code == Some(code), "exit code {code} was expected\n{self}");
        self
    }

    /// stdout as one JSON document; panics, showing everything, when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{self}"))
    }
}

/// The form that snapshots pin: exit code, stdout, stderr.
impl std::fmt::Display for ProgramRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.exit_code {
            Some(code) => writeln!(f, "exit code: {code}")?,
            None => writeln!(f, "ended by a signal")?,
        }
        write!(f, "----- stdout -----\n{}\n----- stderr -----\n{}", self.stdout, self.stderr)
    }
}

/// Runs a program to its end, with nothing on stdin; panics when it takes over two minutes.
///
/// It writes into files, not pipes: a daemon that it leaves behind may keep them open without holding up the test.
pub fn run(mut command: Command) -> ProgramRun {
    let program = command.get_program().to_string_lossy().into_owned();
    let (mut stdout, mut stderr) = (output_file(), output_file());
    let handle = |file: &File| Stdio::from(file.try_clone().expect("an open file can be cloned"));
    command.stdin(Stdio::null()).stdout(handle(&stdout)).stderr(handle(&stderr));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let begin = Instant::now();
    // Short at first: most commands end within milliseconds.
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if begin.elapsed() > LIMIT {
            // Dead already is as good.
            let _ = child.kill();
            let _ = child.wait();
            panic!("{program} took over {LIMIT:?}\n{}\n{}", content(&mut stdout), content(&mut stderr));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    ProgramRun { exit_code: status.code(), stdout: content(&mut stdout), stderr: content(&mut stderr) }
}

/// The same command without some of an administrator's powers, such as `sys_ptrace`; for anybody else it stays as it
/// is. It needs `setpriv`.
#[cfg(target_os = "linux")]
pub fn without_capabilities(command: &Command, powers: &[&str]) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return copy_of(command, Command::new(command.get_program()));
    }
    let dropped: Vec<String> = powers.iter().map(|power| format!("-{power}")).collect();
    let dropped = dropped.join(",");
    let mut without = Command::new("setpriv");
    without.arg(format!("--bounding-set={dropped}")).arg(format!("--inh-caps={dropped}"));
    without.arg("--").arg(command.get_program());
    copy_of(command, without)
}

#[cfg(target_os = "linux")]
fn copy_of(command: &Command, mut copy: Command) -> Command {
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        copy.current_dir(folder);
    }
    copy
}

fn output_file() -> File {
    tempfile::tempfile().expect("the temporary folder is writable")
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("an open file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
