//! Programs that somebody else's work depends on: run for as long as it is waited for, heard while they run, ended
//! with all that they started.
//!
//! A thread of its own starts the program and stays with it to its end: the kernel can then tie the program to that
//! thread, and whoever waits may go away at any moment without waiting for a process that takes its time to end.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::leftovers::{descendants, open_all};
use crate::logs::Stream;
use crate::running_tools::Running;
use crate::sys::{self, ProcessGroup, Signal, process_table};
use crate::tool::reap;

/// How often the thread looks whether it is still waited for. An end of the program is seen at once.
const LOOK: Duration = Duration::from_millis(20);
/// How long the streams of an ended program may be held open by something that it started.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
const CHUNK: usize = 64 * 1024;

/// A program to run.
#[derive(Clone, Debug)]
pub struct ProgramCommand {
    /// A path, or a name to be found through `PATH` of `env`.
    pub program: OsString,
    pub args: Vec<OsString>,
    /// All of its environment: nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    /// Nothing to read where there is none.
    pub stdin: Option<Vec<u8>>,
    /// Bytes of both streams together; more than that ends the program.
    pub output_limit: usize,
    /// How long it may take to end after it was asked to, before it is killed.
    pub grace: Duration,
}

/// Hears what a program says, in pieces as they come. It is let go of when the program and its group are gone,
/// so whatever an ear owns (a working folder, a place in a queue) outlives the program.
pub trait ProgramEar: Send + Sync {
    fn hear(&self, stream: Stream, bytes: &[u8]);
}

/// How a program ended, and all that it said.
#[derive(Clone, Debug)]
pub struct ProgramOutput {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why there is no end to tell of.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("cannot start {}", program.display())]
    Start { program: OsString, source: io::Error },
    #[error("{} said more than {limit} bytes and was ended", program.display())]
    TooMuchOutput { program: OsString, limit: usize },
    #[error("lost track of {}", program.display())]
    Lost { program: OsString, source: io::Error },
}

/// Runs a program to its end. When the future is dropped, the program is asked to end with its whole process group,
/// and killed after the grace; the ear tells when that is done.
pub async fn run_program(
    command: ProgramCommand,
    ear: Arc<dyn ProgramEar>,
) -> Result<ProgramOutput, ProgramError> {
    let program = command.program.clone();
    let unwanted = Arc::new(AtomicBool::new(false));
    let (end, ended) = oneshot::channel();
    let watched = unwanted.clone();
    let work = move || {
        let heard = Heard::new(ear, command.output_limit);
        let outcome = attend(&command, &heard, &watched);
        heard.let_go();
        // Nobody waits any more where the future was dropped.
        let _ = end.send(outcome);
    };
    let thread = std::thread::Builder::new().name("program".to_owned()).spawn(work);
    if let Err(source) = thread {
        return Err(ProgramError::Start { program, source });
    }
    let _wish = EndOfWish(unwanted);
    let lost = |_| ProgramError::Lost { program, source: io::ErrorKind::BrokenPipe.into() };
    ended.await.map_err(lost)?
}

/// Says that nobody waits for the program any more.
struct EndOfWish(Arc<AtomicBool>);

impl Drop for EndOfWish {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The program's whole life, on one thread.
fn attend(
    command: &ProgramCommand,
    heard: &Arc<Heard>,
    unwanted: &AtomicBool,
) -> Result<ProgramOutput, ProgramError> {
    let program = || command.program.clone();
    let (mut child, group) =
        start(command).map_err(|source| ProgramError::Start { program: program(), source })?;
    let lost = |source| ProgramError::Lost { program: program(), source };
    let running = Running::enter(child.id());
    feed(&mut child, command.stdin.clone());
    let streams = listen(&mut child, heard);
    let by_itself = wait_for_end(&group, heard, unwanted);
    // Looked up while the program still lives: those that left its group are found by their parents alone.
    let strays = if by_itself { Vec::new() } else { open_all(&descendants(&process_table(), child.id())) };
    if !by_itself && group.ask_to_end() {
        group.wait(command.grace);
    }
    // Also after a good end: what the program left running in its group is not wanted. The program itself is not
    // reaped yet, so the group cannot have become somebody else's.
    group.kill().map_err(lost)?;
    for stray in &strays {
        let _ = stray.signal(Signal::Kill);
    }
    drop(running);
    let status = reap(&mut child).map_err(lost)?;
    wait_for_streams(&streams);
    let (stdout, stderr) = heard.take();
    if heard.flooded.load(Ordering::Acquire) {
        return Err(ProgramError::TooMuchOutput { program: program(), limit: command.output_limit });
    }
    Ok(ProgramOutput { status, stdout, stderr })
}

fn start(command: &ProgramCommand) -> io::Result<(Child, ProcessGroup)> {
    let mut child = Command::new(&command.program);
    child.args(&command.args).env_clear().envs(command.env.iter().map(|(name, value)| (name, value)));
    child.current_dir(&command.cwd);
    child.stdin(if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::end_with_this_thread(&mut child);
    sys::spawn_group(&mut child)
}

/// On a thread of its own: a program may say much before it reads. One that reads nothing breaks the pipe.
fn feed(child: &mut Child, text: Option<Vec<u8>>) {
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), text) {
        std::thread::spawn(move || stdin.write_all(&text));
    }
}

/// One thread a stream. The receiver is disconnected when both streams have ended.
fn listen(child: &mut Child, heard: &Arc<Heard>) -> Receiver<()> {
    let (open, streams) = channel();
    if let Some(stdout) = child.stdout.take() {
        let (heard, open) = (heard.clone(), open.clone());
        std::thread::spawn(move || read(stdout, Stream::Stdout, &heard, &open));
    }
    if let Some(stderr) = child.stderr.take() {
        let heard = heard.clone();
        std::thread::spawn(move || read(stderr, Stream::Stderr, &heard, &open));
    }
    streams
}

fn read(mut from: impl Read, stream: Stream, heard: &Heard, _open: &Sender<()>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(length @ 1..) if heard.hear(stream, &chunk[..length]) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Whether the program ended by itself, and not because it is unwanted or talks too much.
fn wait_for_end(group: &ProcessGroup, heard: &Heard, unwanted: &AtomicBool) -> bool {
    while !group.wait(LOOK) {
        if unwanted.load(Ordering::Acquire) || heard.flooded.load(Ordering::Acquire) {
            return false;
        }
    }
    true
}

fn wait_for_streams(streams: &Receiver<()>) {
    let end = Instant::now() + DRAIN_LIMIT;
    // Nothing is ever sent: it ends by both streams' end, or by the limit.
    while streams.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
}

/// What was said so far, and who hears it.
struct Heard {
    limit: usize,
    flooded: AtomicBool,
    kept: Mutex<Kept>,
}

struct Kept {
    /// `None` from the program's end on, however long something else holds its streams.
    ear: Option<Arc<dyn ProgramEar>>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Heard {
    fn new(ear: Arc<dyn ProgramEar>, limit: usize) -> Arc<Self> {
        let kept = Kept { ear: Some(ear), stdout: Vec::new(), stderr: Vec::new() };
        Arc::new(Self { limit, flooded: AtomicBool::new(false), kept: Mutex::new(kept) })
    }

    /// `false` when nothing more is heard.
    fn hear(&self, stream: Stream, bytes: &[u8]) -> bool {
        let mut kept = self.kept();
        let Some(ear) = kept.ear.clone() else { return false };
        let room = self.limit.saturating_sub(kept.stdout.len() + kept.stderr.len());
        let within = &bytes[..bytes.len().min(room)];
        match stream {
            Stream::Stdout => kept.stdout.extend_from_slice(within),
            Stream::Stderr => kept.stderr.extend_from_slice(within),
        }
        ear.hear(stream, within);
        if within.len() < bytes.len() {
            self.flooded.store(true, Ordering::Release);
        }
        within.len() == bytes.len()
    }

    fn take(&self) -> (Vec<u8>, Vec<u8>) {
        let mut kept = self.kept();
        (std::mem::take(&mut kept.stdout), std::mem::take(&mut kept.stderr))
    }

    fn let_go(&self) {
        let ear = self.kept().ear.take();
        // Outside the lock: what an ear owns may take its time to be put away.
        drop(ear);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
