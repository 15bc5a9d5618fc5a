//! A step's text log: what its program or its model said, from the first byte on, with no secret in it.
//!
//! A log is for eyes: nothing is ever read back from it, so a write that fails loses text and never a step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::secrets::{SecretStream, Secrets};

/// What one log may take of the disk, over all attempts.
const LIMIT: u64 = 16 * 1024 * 1024;
const FULL: &[u8] = b"\n(the log is full: what follows is not kept)\n";

/// One step's log. The file is made by the first byte. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StepLog {
    sink: Arc<Mutex<Sink>>,
    secrets: Secrets,
}

impl StepLog {
    /// Each attempt goes on where the one before it ended.
    pub(crate) fn new(path: &Path, secrets: &Secrets) -> Self {
        let sink = Sink { path: path.to_owned(), file: None, room: 0, tried: false };
        Self { sink: Arc::new(Mutex::new(sink)), secrets: secrets.clone() }
    }

    /// A way into the log for one source. Several may write at once; each is filtered for itself.
    pub(crate) fn stream(&self) -> LogStream {
        LogStream { sink: self.sink.clone(), filter: self.secrets.stream() }
    }

    /// A whole text of our own.
    pub(crate) fn note(&self, text: &str) {
        self.stream().write(text.as_bytes());
    }
}

/// One source of a log. What may be the beginning of a secret is written when it turns out to be none, at the
/// latest when the stream is dropped.
pub(crate) struct LogStream {
    sink: Arc<Mutex<Sink>>,
    filter: SecretStream,
}

impl LogStream {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let shown = self.filter.pass(bytes);
        self.put(&shown);
    }

    fn put(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.sink.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        let rest = self.filter.finish();
        self.put(&rest);
    }
}

struct Sink {
    path: PathBuf,
    file: Option<File>,
    room: u64,
    tried: bool,
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) {
        if !std::mem::replace(&mut self.tried, true) {
            self.open();
        }
        let Some(file) = &mut self.file else { return };
        let within = usize::try_from(self.room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let mut written = file.write_all(&bytes[..within]);
        self.room -= within as u64;
        if within < bytes.len() {
            written = written.and_then(|()| file.write_all(FULL));
            self.file = None;
        }
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "a step's log cannot be written");
            self.file = None;
        }
    }

    fn open(&mut self) {
        match open(&self.path) {
            Ok((file, length)) => {
                self.room = LIMIT.saturating_sub(length);
                // One that is full says so already.
                self.file = (self.room > 0).then_some(file);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a step's log cannot be opened");
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::read(&["TOKEN".to_owned()], &|_| Some("hush-hush".to_owned())).unwrap()
    }

    #[test]
    fn a_log_is_there_from_its_first_byte_and_goes_on_in_the_next_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/step.log");
        let text = || std::fs::read_to_string(&path).unwrap_or_default();
        let log = StepLog::new(&path, &secrets());
        assert!(!path.exists());
        let mut stream = log.stream();
        stream.write(b"f");
        assert_eq!(text(), "f");
        drop(stream);
        StepLog::new(&path, &secrets()).note("second\n");
        assert_eq!(text(), "fsecond\n");
    }

    #[test]
    fn two_sources_of_one_log_cannot_tell_a_secret_between_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.log");
        let log = StepLog::new(&path, &secrets());
        let (mut one, mut two) = (log.stream(), log.stream());
        one.write(b"hush-");
        two.write(b"two hush-");
        one.write(b"hush one ");
        two.write(b"hush");
        drop((one, two));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two «secret:TOKEN» one «secret:TOKEN»");
    }

    #[test]
    fn a_log_has_an_end_and_says_so_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.log");
        let log = StepLog::new(&path, &Secrets::default());
        let mut stream = log.stream();
        for _ in 0..300 {
            stream.write(&vec![b'x'; 64 * 1024]);
        }
        StepLog::new(&path, &Secrets::default()).note("more");
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text.len() as u64, LIMIT + FULL.len() as u64);
        assert!(text.ends_with(FULL));
    }
}
