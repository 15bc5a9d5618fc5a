//! The one who writes: each event becomes a line of the journal and a change of the manifest, in that order.

mod events;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use orch_core::UnixMicros;
use serde::Serialize;
use tokio::time::Instant;

use crate::Level;
use crate::journal::JournalError;
use crate::journal::fact::{Fact, FactData};
use crate::journal::file::JournalFile;
use crate::journal::line::{self, Head};
use crate::journal::stamp::Stamp;
use crate::manifest::Manifest;
use crate::past::Past;
use crate::run_folder::{RunFolder, private};

pub use events::{FileEvent, JobFacts, ModelAnswered, SkipReason, StepResult};

/// Between two texts of the manifest.
const MANIFEST_PACE: Duration = Duration::from_millis(250);
/// A large manifest takes at most one part in so many of the time.
const MANIFEST_SHARE: u32 = 20;

/// Writes the journal and the manifest of one run. There is one for each run, and it has the folder and its lock.
pub struct Recorder {
    folder: RunFolder,
    journal: JournalFile<File>,
    manifest: Manifest,
    seq: u64,
    stamp: Stamp,
    clock: fn() -> UnixMicros,
    last: UnixMicros,
    manifest_due: Instant,
    manifest_seq: u64,
}

impl Recorder {
    /// Goes on where the journal ends. `past` is what [`RunFolder::resume`] has read; `None` for a new run,
    /// whose journal is empty.
    pub fn open(folder: RunFolder, past: Option<&Past>) -> Result<Self, JournalError> {
        Self::with_clock(folder, past, UnixMicros::now)
    }

    pub(crate) fn with_clock(
        folder: RunFolder,
        past: Option<&Past>,
        clock: fn() -> UnixMicros,
    ) -> Result<Self, JournalError> {
        let path = folder.journal();
        let failed = |source| JournalError { path: folder.journal(), source };
        let medium = File::options().append(true).open(&path).map_err(failed)?;
        let length = medium.metadata().map_err(failed)?.len();
        let manifest = match past {
            Some(past) => past.manifest.clone(),
            None if length == 0 => Manifest::new(folder.id().as_str()),
            None => return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it has lines already"))),
        };
        let mut recorder = Self {
            journal: JournalFile::new(medium, path, length),
            seq: manifest.journal.seq,
            last: manifest.last_event().unwrap_or_default(),
            manifest,
            stamp: Stamp::new(),
            clock,
            manifest_due: Instant::now(),
            manifest_seq: 0,
            folder,
        };
        if recorder.folder.cut_off() > 0 {
            recorder.journal_repaired(recorder.folder.cut_off());
        }
        Ok(recorder)
    }

    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// What is known of the job, up to the last event.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Lines that no flush has written yet.
    pub fn waiting(&self) -> &[u8] {
        self.journal.waiting()
    }

    /// Writes all lines so far with one write. After a failure the journal still is a prefix of whole lines, and
    /// another flush tries the rest again.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.journal.flush()
    }

    /// Bytes of the journal that are written: what a sync begun now covers.
    pub fn written(&self) -> u64 {
        self.journal.written()
    }

    /// Bytes of the journal that outlive a power loss.
    pub fn synced(&self) -> u64 {
        self.journal.synced()
    }

    /// Bytes of the journal with the lines that wait to be written: an event is covered once [`synced`] has reached
    /// what this was after it.
    ///
    /// [`synced`]: Self::synced
    pub fn length(&self) -> u64 {
        self.journal.length()
    }

    /// For a sync on a thread that may wait. Then tell [`mark_synced`] what was written when it began.
    ///
    /// [`mark_synced`]: Self::mark_synced
    pub fn sync_file(&self) -> Result<SyncFile, JournalError> {
        let journal = self.journal.medium().try_clone().map_err(|source| self.journal.error(source))?;
        let is_first = self.journal.synced() == 0;
        let also = if is_first { self.folder.to_be_synced() } else { Vec::new() };
        Ok(SyncFile { journal, also })
    }

    pub fn mark_synced(&mut self, offset: u64) {
        self.journal.mark_synced(offset);
    }

    /// Flushes and syncs on this thread.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.sync_file()?.sync_data().map_err(|source| self.journal.error(source))?;
        self.journal.mark_synced(self.journal.written());
        Ok(())
    }

    /// When the manifest is to be written next; `None` where it tells all that has happened.
    pub fn manifest_due(&self) -> Option<Instant> {
        (self.seq != self.manifest_seq).then_some(self.manifest_due)
    }

    /// Writes the manifest if it has changed and its time has come.
    pub fn write_manifest_if_due(&mut self, now: Instant) -> Result<(), JournalError> {
        match self.manifest_due() {
            Some(due) if due <= now => self.write_manifest(),
            _ => Ok(()),
        }
    }

    /// Writes what is waiting, then the manifest: it never knows more than the journal.
    pub fn write_manifest(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        let began = Instant::now();
        let written = self.folder.replace_manifest(&self.manifest.to_json());
        let ended = Instant::now();
        self.manifest_due = ended + MANIFEST_PACE.max((ended - began) * (MANIFEST_SHARE - 1));
        written.map_err(|source| JournalError { path: self.folder.manifest(), source })?;
        self.manifest_seq = self.seq;
        Ok(())
    }

    /// One line, and what it means. `meaning` is what a reader would find in `data`.
    fn record(&mut self, head: &Head<'_>, data: &impl Serialize, meaning: FactData<'_>) {
        // A clock that is set back does not make the journal go back.
        let at = (self.clock)().max(self.last);
        self.last = at;
        self.seq += 1;
        let stamp = self.stamp.write(at);
        line::append(self.journal.buffer(), stamp, self.seq, self.folder.id().as_str(), head, data);
        let fact = Fact {
            at,
            seq: self.seq,
            kind: Some(head.kind),
            step: head.step.map(Into::into),
            attempt: head.attempt,
            data: meaning,
        };
        self.manifest.apply(&fact, self.journal.length());
    }

    fn record_simply(&mut self, head: &Head<'_>, data: &impl Serialize) {
        self.record(head, data, FactData::default());
    }
}

/// What a sync makes outlive a power loss: the journal, and the first time also the folder that it lies in and
/// what the job was begun with.
#[derive(Debug)]
pub struct SyncFile {
    journal: File,
    also: Vec<PathBuf>,
}

impl SyncFile {
    /// Blocks until it is done.
    pub fn sync_data(&self) -> io::Result<()> {
        self.also.iter().try_for_each(|path| private::sync(path))?;
        self.journal.sync_data()
    }
}

impl Level {
    const fn head<'a>(self, kind: crate::EventType) -> Head<'a> {
        Head { kind, level: self, step: None, attempt: None }
    }
}

impl<'a> Head<'a> {
    const fn step(mut self, step: &'a str) -> Self {
        self.step = Some(step);
        self
    }

    const fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }
}
