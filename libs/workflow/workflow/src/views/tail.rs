//! Following a journal: line by line, while it grows, across the lives of its job.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use orch_core::{ExitCode, Failure};
use serde::Deserialize;

use crate::journal::fact::Text;
use crate::journal::line::{LINE_LIMIT, is_whole};
use crate::{EventType, Level};

const READ_AT_ONCE: usize = 256 * 1024;

/// One line, checked, with what it is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    pub seq: u64,
    pub level: Level,
    /// `None` for a type of a later version.
    pub kind: Option<EventType>,
    pub step: Option<String>,
    /// As it stands in the journal, without its newline.
    pub text: String,
}

#[derive(Deserialize)]
struct LineHead<'a> {
    seq: u64,
    level: Level,
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(default)]
    step: Option<Text<'a>>,
}

#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("line {line} of {} is damaged", path.display())]
    Damaged { path: PathBuf, line: u64 },
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl From<TailError> for Failure {
    fn from(error: TailError) -> Self {
        match &error {
            TailError::Damaged { .. } => Failure::new(ExitCode::StateUnusable, error.to_string())
                .hint("whole lines follow it: something other than a crash has changed the file"),
            TailError::Io { source, .. } => Failure::new(ExitCode::General, format!("{error}: {source}")),
        }
    }
}

/// A place in a journal that may still grow. Only whole lines are passed: a line that is being written, or that a
/// crash has torn, is looked at again next time.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Where the next line begins.
    offset: u64,
    /// Of the last line that was read.
    at: u64,
    /// Lines up to this one are not passed.
    seq: u64,
    job_has_ended: bool,
    buffer: Vec<u8>,
}

impl Tail {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, at: 0, seq: 0, job_has_ended: false, buffer: Vec::new() }
    }

    /// Passes nothing up to and with this number.
    #[must_use]
    pub fn after(mut self, seq: u64) -> Self {
        self.seq = seq;
        self
    }

    /// Whether the last line so far ends the job. Resuming it goes on behind.
    pub fn is_at_end_of_job(&self) -> bool {
        self.job_has_ended
    }

    /// The lines that came since the last call, at most a few hundred kilobytes of them; empty at the end. A
    /// journal that is not there yet has none.
    pub fn read(&mut self) -> Result<Vec<JournalLine>, TailError> {
        let mut lines = Vec::new();
        // Lines up to `seq` may fill more than one piece.
        while lines.is_empty() {
            match self.read_piece(&mut lines) {
                Ok(true) => {}
                Ok(false) => break,
                // What was before the damage is passed first.
                Err(_) if !lines.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(lines)
    }

    /// False where there is nothing more for now.
    fn read_piece(&mut self, lines: &mut Vec<JournalLine>) -> Result<bool, TailError> {
        let more = match self.fill() {
            Ok(more) => more,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(TailError::Io { path: self.path.clone(), source }),
        };
        let mut begin = 0;
        while let Some(length) = memchr::memchr(b'\n', &self.buffer[begin..]) {
            let Some(line) = read_line(&self.buffer[begin..begin + length]) else {
                self.refuse_if_more_follows(begin + length + 1)?;
                return Ok(false);
            };
            begin += length + 1;
            self.offset += length as u64 + 1;
            self.at = line.seq;
            if let Some(kind) = line.kind {
                self.job_has_ended = kind.ends_job();
            }
            if line.seq > self.seq {
                self.seq = line.seq;
                lines.push(line);
            }
        }
        Ok(more && begin > 0)
    }

    /// Fills the buffer with what follows the last line that was passed; with a whole line, however long it is.
    fn fill(&mut self) -> io::Result<bool> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.offset {
            // Somebody has put an older state back. Lines that were passed are not passed again.
            self.offset = 0;
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.buffer.clear();
        let mut limit = READ_AT_ONCE;
        loop {
            let room = (limit - self.buffer.len()) as u64;
            let read = (&mut file).take(room).read_to_end(&mut self.buffer)? as u64;
            if read < room {
                return Ok(false);
            }
            if memchr::memchr(b'\n', &self.buffer).is_some() || limit > LINE_LIMIT {
                return Ok(true);
            }
            limit *= 2;
        }
    }

    /// A line that is not whole, at the end, is what a crash has left, and goes when the job is resumed.
    fn refuse_if_more_follows(&self, from: usize) -> Result<(), TailError> {
        let mut following = self.buffer[from..].split(|byte| *byte == b'\n');
        if following.any(is_whole) {
            return Err(TailError::Damaged { path: self.path.clone(), line: self.at + 1 });
        }
        Ok(())
    }
}

fn read_line(line: &[u8]) -> Option<JournalLine> {
    if !is_whole(line) {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    let head: LineHead<'_> = serde_json::from_str(text).ok()?;
    Some(JournalLine {
        seq: head.seq,
        level: head.level,
        kind: EventType::from_word(&head.kind),
        step: head.step.map(|step| step.to_string()),
        text: text.to_owned(),
    })
}
