//! The journal's file: lines are collected, written together, and synced together.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use orch_core::{ExitCode, Failure};

/// The journal could not be written. What is in the file is still a prefix of whole lines.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct JournalError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let failure = Failure::new(ExitCode::General, format!("{error}: {}", error.source));
        let full = matches!(
            error.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let first = if full { "make room on the disk" } else { "see to the disk" };
        failure.hint(format!("{first}, then go on with `llama-orch run --resume`: what is done stays done"))
    }
}

/// What a journal is written to.
pub(crate) trait Medium: Write {
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Medium for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// An open journal. Lines wait in memory until they are flushed, all with one write.
pub(crate) struct JournalFile<M> {
    medium: M,
    path: PathBuf,
    waiting: Vec<u8>,
    written: u64,
    synced: u64,
    /// Bytes of a torn line could not be cut off: nothing may be written behind them.
    torn: bool,
}

impl<M: Medium> JournalFile<M> {
    /// `medium` appends; `length` is where it stands.
    pub(crate) fn new(medium: M, path: PathBuf, length: u64) -> Self {
        Self { medium, path, waiting: Vec::with_capacity(64 * 1024), written: length, synced: 0, torn: false }
    }

    pub(crate) fn waiting(&self) -> &[u8] {
        &self.waiting
    }

    /// For appending whole lines to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Bytes in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Bytes in the file and waiting.
    pub(crate) fn length(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    pub(crate) fn mark_synced(&mut self, offset: u64) {
        self.synced = self.synced.max(offset.min(self.written));
    }

    pub(crate) fn medium(&self) -> &M {
        &self.medium
    }

    pub(crate) fn error(&self, source: io::Error) -> JournalError {
        JournalError { path: self.path.clone(), source }
    }

    /// Writes what waits. After a failure the file ends with a whole line again, and what is not in it still
    /// waits: the flush can be tried once more.
    pub(crate) fn flush(&mut self) -> Result<(), JournalError> {
        if self.torn {
            self.cut_torn()?;
        }
        let mut done = 0;
        let result = loop {
            if done == self.waiting.len() {
                break Ok(());
            }
            match self.medium.write(&self.waiting[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let whole = memchr::memrchr(b'\n', &self.waiting[..done]).map_or(0, |at| at + 1);
        self.waiting.drain(..whole);
        self.written += whole as u64;
        match result {
            Ok(()) => Ok(()),
            Err(source) => {
                self.torn = done > whole;
                // The first failure is the one to tell.
                let _ = self.cut_torn();
                Err(self.error(source))
            }
        }
    }

    fn cut_torn(&mut self) -> Result<(), JournalError> {
        if self.torn {
            self.medium.cut(self.written).map_err(|source| self.error(source))?;
            self.torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A disk with so much room, that takes so many bytes at once.
    #[derive(Default)]
    struct SmallDisk {
        content: Vec<u8>,
        room: usize,
        at_once: usize,
        cuts_fail: bool,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room - self.content.len()).min(self.at_once);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Medium for SmallDisk {
        fn cut(&mut self, length: u64) -> io::Result<()> {
            if self.cuts_fail {
                return Err(io::ErrorKind::Other.into());
            }
            self.content.truncate(usize::try_from(length).unwrap());
            Ok(())
        }
    }

    fn journal(room: usize, at_once: usize) -> JournalFile<SmallDisk> {
        let disk = SmallDisk { room, at_once, ..SmallDisk::default() };
        JournalFile::new(disk, PathBuf::from("events.jsonl"), 0)
    }

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let mut journal = journal(3, 100);
        journal.buffer().extend_from_slice(b"one\ntwo\n");
        let failure = Failure::from(journal.flush().unwrap_err());
        assert!(failure.message.starts_with("cannot write events.jsonl: "), "{failure}");
        assert!(failure.hint.unwrap().contains("make room on the disk"));
        assert_eq!(journal.medium.content, b"", "no torn line stays");
    }

    #[test]
    fn nothing_is_written_behind_a_torn_line_that_could_not_be_cut_off() {
        let mut journal = journal(6, 100);
        journal.medium.cuts_fail = true;
        journal.buffer().extend_from_slice(b"one\ntwo\n");
        assert!(journal.flush().is_err());
        assert_eq!(journal.medium.content, b"one\ntw");
        journal.medium.room = 100;
        assert!(journal.flush().is_err());
        assert_eq!(journal.medium.content, b"one\ntw");
        journal.medium.cuts_fail = false;
        journal.flush().unwrap();
        assert_eq!(journal.medium.content, b"one\ntwo\n");
    }

    proptest! {
        #[test]
        fn the_file_is_whole_lines_whatever_room_the_disk_has(
            lines in prop::collection::vec("[a-z]{0,9}", 1..12),
            room in 0usize..80,
            at_once in 1usize..20,
        ) {
            let text = lines.join("\n") + "\n";
            let mut journal = journal(room, at_once);
            for line in &lines {
                journal.buffer().extend_from_slice(format!("{line}\n").as_bytes());
                let _ = journal.flush();
                let content = &journal.medium.content;
                prop_assert!(content.is_empty() || content.ends_with(b"\n"));
                prop_assert!(text.as_bytes().starts_with(content));
                prop_assert_eq!(journal.written(), content.len() as u64);
            }
            journal.medium.room = usize::MAX;
            journal.flush().unwrap();
            prop_assert_eq!(&journal.medium.content, text.as_bytes());
        }
    }
}
