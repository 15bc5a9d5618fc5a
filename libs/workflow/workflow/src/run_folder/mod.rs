//! The folder of one run: where everything lies, and who may write there.

mod job_id;
pub(crate) mod lock;
pub(crate) mod private;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};
use serde_json::{Map, Value};

use crate::journal::scan::{ScanError, WholePart, scan};
use crate::past::Past;
use lock::Lock;

pub use job_id::{JobId, JobIdError};
pub use lock::Holder;

/// Names the newest job wherever a job is named.
pub(crate) const LAST: &str = "last";
/// Inputs may be large; they are not endless.
const LONGEST_INPUT: u64 = 256 * 1024 * 1024;
pub(crate) const READ_AT_ONCE: usize = 256 * 1024;

/// A run's folder, held by this process: nobody else writes there while this lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    id: JobId,
    /// Bytes that were cut off the journal when it was opened.
    cut_off: u64,
    _lock: Lock,
}

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    #[error("the job {id} exists already")]
    AlreadyExists { id: JobId },
    #[error("there is no job {id}")]
    NotFound { id: JobId },
    #[error("the job {id} is run by {}", shown(holder.as_ref()))]
    Held { id: JobId, holder: Option<Holder> },
    #[error("line {line} of {} is damaged", path.display())]
    Damaged { path: PathBuf, line: u64 },
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn shown(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process that has not said who it is".to_owned(), ToString::to_string)
}

impl From<RunFolderError> for Failure {
    fn from(error: RunFolderError) -> Self {
        match &error {
            RunFolderError::AlreadyExists { .. } => {
                Failure::new(ExitCode::AlreadyExists, error.to_string())
                    .hint("go on with it by --resume, or choose another --job-id")
            }
            RunFolderError::NotFound { .. } => Failure::new(ExitCode::JobNotFound, error.to_string())
                .hint("`llama-orch jobs` lists the jobs of this home"),
            RunFolderError::Held { id, .. } => Failure::new(ExitCode::LockNotAcquired, error.to_string())
                .hint(format!("watch it with `llama-orch tail -f {id}`, or end it with `llama-orch cancel {id}`")),
            RunFolderError::Damaged { path, line } => Failure::new(ExitCode::StateUnusable, error.to_string())
                .hint(format!(
                    "whole lines follow it, so this is no torn end. Keep a copy of {}, cut it before line {line}, \
                     and resume: what was journalled later is done again",
                    path.display()
                )),
            RunFolderError::Io { source, .. } => {
                let exit = match source.kind() {
                    io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
                    _ => ExitCode::General,
                };
                let failure = Failure::new(exit, format!("{error}: {source}"));
                match what_to_do(source.kind()) {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

const fn what_to_do(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded | FileTooLarge => Some("make room on the disk, then try again"),
        PermissionDenied | ReadOnlyFilesystem => {
            Some("the home has to be writable for you; --home or LLAMA_ORCH_HOME names another")
        }
        _ => None,
    }
}

impl RunFolder {
    /// A new run below `runs`, with the folders that it needs and an empty journal. `command` tells others who
    /// holds it.
    pub fn create(runs: &Path, id: &JobId, project: &str, command: &str) -> Result<Self, RunFolderError> {
        let path = runs.join(id.as_str());
        let failed = |source| RunFolderError::Io { path: path.clone(), source };
        private::create_folders(runs).map_err(failed)?;
        match private::create_folder(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RunFolderError::AlreadyExists { id: id.clone() });
            }
            Err(error) => return Err(failed(error)),
        }
        let made = Self::lock(path.clone(), id, command).and_then(|folder| {
            folder.create_parts(project).map_err(failed)?;
            Ok(folder)
        });
        if made.is_err() {
            Self::remove_unbegun(runs, id);
        }
        made
    }

    /// Removes a run of which nothing was ever journalled, so that no empty one is left where it could not even
    /// begin. Answers whether it did.
    pub fn remove_unbegun(runs: &Path, id: &JobId) -> bool {
        let path = runs.join(id.as_str());
        // One that somebody else has taken up by now is theirs.
        let Ok(_folder) = Self::lock(path.clone(), id, "llama-orch run") else { return false };
        let has_begun = journal(&path).metadata().is_ok_and(|journal| journal.len() > 0);
        !has_begun && std::fs::remove_dir_all(&path).is_ok()
    }

    /// A run that is there. Reads its journal; a torn end is cut off.
    pub fn resume(runs: &Path, id: &JobId, command: &str) -> Result<(Self, Past), RunFolderError> {
        let path = runs.join(id.as_str());
        if !path.is_dir() {
            return Err(RunFolderError::NotFound { id: id.clone() });
        }
        let mut folder = Self::lock(path, id, command)?;
        let failed = |source| RunFolderError::Io { path: folder.path.clone(), source };
        // A run that was ended while it was made lacks some.
        folder.create_folders().map_err(failed)?;
        let (past, whole) = folder.read_journal()?;
        folder.cut_journal(whole).map_err(failed)?;
        folder.cut_off = whole.torn;
        Ok((folder, past))
    }

    fn lock(path: PathBuf, id: &JobId, command: &str) -> Result<Self, RunFolderError> {
        let file = lock_file(&path);
        match Lock::take(&file, command) {
            Ok(Some(lock)) => Ok(Self { path, id: id.clone(), cut_off: 0, _lock: lock }),
            Ok(None) => Err(RunFolderError::Held { id: id.clone(), holder: lock::holder(&file) }),
            Err(source) => Err(RunFolderError::Io { path: file, source }),
        }
    }

    fn create_parts(&self, project: &str) -> io::Result<()> {
        self.create_folders()?;
        private::create_folders(&self.outputs(project))?;
        private::options().write(true).create_new(true).open(self.journal())?;
        Ok(())
    }

    fn create_folders(&self) -> io::Result<()> {
        for part in [
            self.inputs(),
            self.path.join("outputs"),
            self.logs(),
            self.artifacts(),
            self.control(),
            self.cache(),
        ] {
            private::create_folders(&part)?;
        }
        Ok(())
    }

    fn read_journal(&self) -> Result<(Past, WholePart), RunFolderError> {
        let path = self.journal();
        let mut past = Past::new(self.id.as_str());
        let failed = |source| RunFolderError::Io { path: self.journal(), source };
        // Also creates it, for a run that was ended while it was made.
        let file = private::options().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let mut end = 0;
        let scanned = scan(BufReader::with_capacity(READ_AT_ONCE, file), |line, fact| {
            end += line.len() as u64 + 1;
            past.apply(fact, end);
        });
        match scanned {
            Ok(whole) => Ok((past, whole)),
            Err(ScanError::Damaged { line }) => Err(RunFolderError::Damaged { path, line }),
            Err(ScanError::Io(source)) => Err(failed(source)),
        }
    }

    /// Leaves the journal with whole lines alone.
    fn cut_journal(&self, whole: WholePart) -> io::Result<()> {
        if whole.torn == 0 && !whole.lacks_newline {
            return Ok(());
        }
        let mut file = File::options().write(true).open(self.journal())?;
        file.set_len(whole.bytes)?;
        file.seek(SeekFrom::End(0))?;
        if whole.lacks_newline {
            file.write_all(b"\n")?;
        }
        file.sync_data()
    }

    pub fn id(&self) -> &JobId {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn cut_off(&self) -> u64 {
        self.cut_off
    }

    pub fn journal(&self) -> PathBuf {
        journal(&self.path)
    }

    pub fn manifest(&self) -> PathBuf {
        manifest(&self.path)
    }

    pub fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    /// Root of the files that steps write.
    pub fn outputs(&self, project: &str) -> PathBuf {
        self.path.join("outputs").join(project)
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Where others leave what they want of this run.
    pub fn control(&self) -> PathBuf {
        self.path.join("control")
    }

    /// Entries that this run used, and those that are for it alone.
    pub fn cache(&self) -> PathBuf {
        self.path.join(".cache")
    }

    /// Keeps what the job is made of, so that it can be resumed without it.
    pub fn write_inputs(&self, spec: &str, inputs: &Map<String, Value>) -> Result<(), RunFolderError> {
        let inputs = serde_json::to_vec_pretty(inputs).expect("a JSON object always becomes text");
        for (path, content) in [(self.spec_file(), spec.as_bytes()), (self.inputs_file(), &inputs)] {
            private::replace(&path, content).map_err(|source| RunFolderError::Io { path, source })?;
        }
        Ok(())
    }

    /// The workflow as it was kept; `None` where the run was ended before it was.
    pub fn read_spec(&self) -> Result<Option<String>, RunFolderError> {
        let path = self.spec_file();
        let Some(content) = read_bounded(&path)? else { return Ok(None) };
        let text = String::from_utf8(content).map_err(|_| unusable(path, "it is not UTF-8"))?;
        Ok(Some(text))
    }

    /// The inputs as they were kept; `None` where the run was ended before they were.
    pub fn read_inputs(&self) -> Result<Option<Map<String, Value>>, RunFolderError> {
        let path = self.inputs_file();
        let Some(content) = read_bounded(&path)? else { return Ok(None) };
        let inputs = serde_json::from_slice(&content).map_err(|_| unusable(path, "it is no JSON object"))?;
        Ok(Some(inputs))
    }

    /// What a run needs besides its journal to be there after a power loss: what it was begun with, and the names
    /// of all this in their folders.
    pub(crate) fn to_be_synced(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.spec_file(), self.inputs_file(), self.inputs(), self.path.clone()];
        paths.extend(self.path.parent().map(Path::to_path_buf));
        paths.retain(|path| path.exists());
        paths
    }

    fn spec_file(&self) -> PathBuf {
        self.inputs().join("spec.yaml")
    }

    fn inputs_file(&self) -> PathBuf {
        self.inputs().join("inputs.json")
    }

    /// Puts a new manifest in the place of the old one. It can be made from the journal at any time, so it need not
    /// outlive a power loss.
    pub(crate) fn replace_manifest(&self, content: &[u8]) -> io::Result<()> {
        private::replace(&self.manifest(), content)
    }
}

fn unusable(path: PathBuf, why: &str) -> RunFolderError {
    RunFolderError::Io { path, source: io::Error::new(io::ErrorKind::InvalidData, why) }
}

fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, RunFolderError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(LONGEST_INPUT + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LONGEST_INPUT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
        }
        Ok(content)
    };
    match read() {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RunFolderError::Io { path: path.to_owned(), source }),
    }
}

pub(crate) fn journal(run: &Path) -> PathBuf {
    run.join("events.jsonl")
}

pub(crate) fn lock_file(run: &Path) -> PathBuf {
    run.join("lock")
}

/// Of a run that was handed to a control plane: whose it is, and how it is to be run. Written last of all that a
/// submission leaves.
pub fn owner_file(run: &Path) -> PathBuf {
    run.join("control").join("owner.json")
}

pub(crate) fn manifest(run: &Path) -> PathBuf {
    run.join("manifest.json")
}
