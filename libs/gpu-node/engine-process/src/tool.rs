//! Short-lived helpers: an engine asked for its version, a package manager, a health script. Their output and
//! their time are bounded, and what they started ends with them.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::leftovers::{descendants, open_all};
use crate::running_tools::Running;
use crate::sys::{self, ProcessGroup, Signal, process_table};
use crate::wait::wait_until;

/// What is kept of each stream; later lines are still told to the listener.
const KEPT_LIMIT: usize = 4 * 1024 * 1024;
/// Longer lines are told in pieces.
const LINE_LIMIT: u64 = 64 * 1024;
/// How long the streams of an ended tool may be held open by something it started.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// A tool to run.
#[derive(Clone, Debug, Default)]
pub struct ToolCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Set on top of this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether this process's environment is left out.
    pub clear_env: bool,
    pub cwd: Option<PathBuf>,
}

/// How a tool ended, and what it said.
#[derive(Clone, Debug)]
pub struct ToolOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("cannot run {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("{} took longer than {limit:?}", program.display())]
    Timeout { program: PathBuf, limit: Duration, stdout: String, stderr: String },
    #[error("lost track of {}", program.display())]
    Wait { program: PathBuf, source: io::Error },
}

enum Piece {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// Runs a tool to its end or to the limit, telling each line of either stream as it comes. Blocking.
pub fn run_tool(
    command: &ToolCommand,
    limit: Duration,
    on_line: &mut dyn FnMut(&str),
) -> Result<ToolOutput, ToolError> {
    let program = || command.program.clone();
    let (mut child, group) =
        spawn(command).map_err(|source| ToolError::Spawn { program: program(), source })?;
    let lost = |source| ToolError::Wait { program: program(), source };
    let running = Running::enter(child.id());
    let pieces = read_streams(&mut child);
    let mut kept = Kept::default();
    let end = Instant::now() + limit;
    let in_time = collect(&group, &pieces, end, &mut |piece| kept.take(&piece, on_line));
    // Looked up while the tool still lives: those that left its group are found by their parents alone.
    let strays = if in_time { Vec::new() } else { open_all(&descendants(&process_table(), child.id())) };
    // Also after a good end: what the tool left running in its group is not wanted. The tool itself is not
    // reaped yet, so the group cannot have become somebody else's.
    group.kill().map_err(lost)?;
    for stray in &strays {
        let _ = stray.signal(Signal::Kill);
    }
    drop(running);
    let status = reap(&mut child).map_err(lost)?;
    drain(&pieces, &mut |piece| kept.take(&piece, on_line));
    let (stdout, stderr) = kept.into_text();
    if in_time {
        Ok(ToolOutput { status, stdout, stderr })
    } else {
        Err(ToolError::Timeout { program: program(), limit, stdout, stderr })
    }
}

fn spawn(command: &ToolCommand) -> io::Result<(Child, ProcessGroup)> {
    let mut child = Command::new(&command.program);
    if command.clear_env {
        child.env_clear();
    }
    child.args(&command.args).envs(command.env.iter().map(|(name, value)| (name, value)));
    if let Some(folder) = &command.cwd {
        child.current_dir(folder);
    }
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::spawn_group(&mut child)
}

/// One thread a stream. Each ends when its pipe closes or nobody listens any more.
fn read_streams(child: &mut Child) -> Receiver<Piece> {
    let (sender, receiver) = sync_channel(64);
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        std::thread::spawn(move || read_lines(stdout, &sender, Piece::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || read_lines(stderr, &sender, Piece::Stderr));
    }
    receiver
}

fn read_lines(stream: impl Read, sender: &SyncSender<Piece>, wrap: fn(Vec<u8>) -> Piece) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if sender.send(wrap(line)).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Takes what comes until the tool has ended; `false` when the time is over first.
fn collect(
    group: &ProcessGroup,
    pieces: &Receiver<Piece>,
    end: Instant,
    take: &mut dyn FnMut(Piece),
) -> bool {
    const LOOK: Duration = Duration::from_millis(20);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match pieces.recv_timeout(left.min(LOOK)) {
            Ok(piece) => take(piece),
            Err(RecvTimeoutError::Timeout) => {}
            // Both streams are closed; only the end of the process is still to come.
            Err(RecvTimeoutError::Disconnected) => return group.wait(left),
        }
        if group.wait(Duration::ZERO) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

fn drain(pieces: &Receiver<Piece>, take: &mut dyn FnMut(Piece)) {
    let end = Instant::now() + DRAIN_LIMIT;
    while let Ok(piece) = pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
        take(piece);
    }
}

/// Takes the end of a child that is about to end.
pub(crate) fn reap(child: &mut Child) -> io::Result<ExitStatus> {
    let mut status = None;
    wait_until(REAP_LIMIT, || {
        status = child.try_wait().transpose();
        status.is_some()
    });
    status.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end")))
}

#[derive(Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Kept {
    fn take(&mut self, piece: &Piece, on_line: &mut dyn FnMut(&str)) {
        let (bytes, kept) = match piece {
            Piece::Stdout(bytes) => (bytes, &mut self.stdout),
            Piece::Stderr(bytes) => (bytes, &mut self.stderr),
        };
        if kept.len() + bytes.len() <= KEPT_LIMIT {
            kept.extend_from_slice(bytes);
        }
        on_line(String::from_utf8_lossy(bytes).trim_end_matches(['\n', '\r']));
    }

    fn into_text(self) -> (String, String) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(self.stdout), text(self.stderr))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::identity::start_mark;

    fn shell(script: &str) -> ToolCommand {
        ToolCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ..ToolCommand::default()
        }
    }

    fn run(script: &str, limit: Duration) -> (Result<ToolOutput, ToolError>, Vec<String>) {
        let mut lines = Vec::new();
        let result = run_tool(&shell(script), limit, &mut |line| lines.push(line.to_owned()));
        (result, lines)
    }

    #[test]
    fn a_tool_tells_its_lines_its_streams_and_its_code() {
        let (result, lines) = run("echo one; echo two >&2; exit 3", Duration::from_secs(20));
        let output = result.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\n", "two\n"));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_tool_over_its_limit_is_killed_with_what_it_started() {
        let (result, lines) = run("sleep 1000 & echo $!; wait", Duration::from_millis(300));
        assert!(matches!(result, Err(ToolError::Timeout { .. })), "{result:?}");
        let child: u32 = lines[0].parse().unwrap();
        assert!(wait_until(Duration::from_secs(5), || start_mark(child).is_none()));
    }

    #[test]
    fn a_tool_over_its_limit_is_killed_with_what_left_its_group() {
        let (result, lines) =
            run("setsid sh -c 'echo $$; exec sleep 1000' & wait", Duration::from_millis(500));
        assert!(matches!(result, Err(ToolError::Timeout { .. })), "{result:?}");
        let stray: u32 = lines[0].parse().unwrap();
        assert!(wait_until(Duration::from_secs(5), || start_mark(stray).is_none()));
    }

    #[test]
    fn something_left_running_does_not_hold_up_the_answer() {
        let begun = Instant::now();
        let (result, _) = run("sleep 1000 & echo done", Duration::from_mins(1));
        assert_eq!(result.unwrap().stdout, "done\n");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_tool_that_talks_without_end_is_kept_within_bounds() {
        let (result, lines) =
            run("yes 0123456789012345678901234567890123456789 | head -c 9000000", Duration::from_mins(1));
        let output = result.unwrap();
        assert!(output.stdout.len() <= KEPT_LIMIT);
        assert!(lines.len() > 200_000);
    }

    #[test]
    fn a_missing_tool_is_told_by_name() {
        let command = ToolCommand { program: "/nowhere/tool".into(), ..ToolCommand::default() };
        let error = run_tool(&command, Duration::from_secs(1), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("/nowhere/tool"));
    }
}
