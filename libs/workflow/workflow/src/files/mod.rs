//! Files that steps write: below one folder, whole or not at all, and whatever a model calls them.
//!
//! A file is first written into a hidden folder of the run (staged) and gets its name when its step has succeeded
//! (published), under a lock that is never removed. Nothing below the output folder is reached through a link.

mod appends;
mod lock;
mod media;
mod names;
mod path;
mod staged;
#[cfg(test)]
mod tests;

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use orch_core::UnixMillis;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use workflow_spec::{FailureKind, WriteMode};

use crate::key::Digest;
use crate::store::{Durability, remove_forgotten};
use lock::PublishLock;
use names::Names;
#[cfg(not(unix))]
use other::Folder;
pub use path::{OutputPath, PathRefusal};
pub use staged::Staged;
#[cfg(unix)]
use unix::Folder;

/// The run's folder of outputs, and the hidden one for what is not published.
const OUTPUTS: &str = "outputs";
const STAGING: &str = ".staged";

/// No file that a step writes is larger.
const LARGEST: u64 = 64 << 20;

/// The files that the steps of one run write.
pub struct OutputFiles {
    run: PathBuf,
    project: OutputPath,
    durability: Durability,
    staging: Folder,
    lock: PublishLock,
    names: Names,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub path: String,
    /// Of the whole file as this step left it.
    pub sha256: Digest,
    pub size_bytes: u64,
    /// Whether the file changed.
    pub wrote: bool,
    pub reason: WriteReason,
    pub media_type: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteReason {
    Created,
    NoChange,
    Overwritten,
    Appended,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("refused to touch the file {}: {reason}", path::shown(.path))]
    Refused { path: String, reason: PathRefusal },
    #[error("{path} exists with other content; set `mode: overwrite` or `append`, or remove the file")]
    Exists { path: String },
    #[error("{path} has {size_bytes} bytes, and {} MiB are allowed", LARGEST >> 20)]
    TooLarge { path: String, size_bytes: u64 },
    #[error("another process has been writing into {} for {}s; see whether it hangs", .folder.display(), .seconds)]
    Busy { folder: PathBuf, seconds: u64 },
    #[error("cannot write {what}; check free space and permissions")]
    Failed {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl FileError {
    /// The kind of failure of the step that wanted the file.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Refused { .. } | Self::Exists { .. } | Self::TooLarge { .. } => FailureKind::Validation,
            Self::Busy { .. } | Self::Failed { .. } => FailureKind::Internal,
        }
    }
}

/// What stands where a folder or a file should be.
#[derive(Debug)]
enum Obstacle {
    Link,
    NoFolder,
    NoFile,
    Failed(io::Error),
}

impl Obstacle {
    /// `at` is the part of the path where it stands.
    fn on(self, path: &OutputPath, at: &str) -> FileError {
        let reason = match self {
            Self::Link => PathRefusal::Link(at.to_owned()),
            Self::NoFolder => PathRefusal::NoFolder(at.to_owned()),
            Self::NoFile => PathRefusal::NoFile,
            Self::Failed(source) => return failed(path.as_str(), source),
        };
        refused(path.as_str(), reason)
    }
}

fn refused(path: &str, reason: PathRefusal) -> FileError {
    FileError::Refused { path: path.to_owned(), reason }
}

fn failed(what: impl Into<String>, source: io::Error) -> FileError {
    FileError::Failed { what: what.into(), source }
}

/// Who may read what is made. What steps write is made as any program makes it, for it may be carried elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Owner,
    All,
}

/// Whether folders that are missing on the way are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    AsItIs,
    Made,
}

impl OutputFiles {
    /// The files below `outputs/<project>/` of a run's folder. Creates what is missing.
    pub fn open(run: impl Into<PathBuf>, project: &str, durability: Durability) -> Result<Self, FileError> {
        let run = run.into();
        let project = OutputPath::new(project).map_err(|reason| refused(project, reason))?;
        let place = run.join(STAGING).display().to_string();
        let folder = Folder::open(&run).map_err(|source| failed(run.display().to_string(), source))?;
        let staging =
            made(&folder, STAGING, For::Owner).map_err(|obstacle| obstacle.on(&project, STAGING))?;
        remove_forgotten(&run.join(STAGING), staged::PREFIX, UnixMillis::now());
        let lock = PublishLock::open(&staging, run.join(OUTPUTS)).map_err(|source| failed(place, source))?;
        let files = Self { run, project, durability, staging, lock, names: Names::default() };
        files.root(Way::Made)?;
        Ok(files)
    }

    /// Checks a path without touching anything.
    pub fn check_path(path: &str) -> Result<OutputPath, FileError> {
        OutputPath::new(path).map_err(|reason| refused(path, reason))
    }

    /// Where the files lie.
    pub fn folder(&self) -> PathBuf {
        self.run.join(OUTPUTS).join(self.project.as_str())
    }

    /// Begins the files of a step.
    pub fn stage<'a>(&'a self, step: &'a str) -> Staged<'a> {
        Staged::new(self, step)
    }

    /// Writes one file of a step: staged and published in one go.
    pub fn write(
        &self,
        step: &str,
        path: &str,
        mode: WriteMode,
        content: &[u8],
    ) -> Result<Written, FileError> {
        let mut staged = self.stage(step);
        staged.add(path, mode, content)?;
        let mut written = staged.publish()?;
        Ok(written.remove(0))
    }

    /// Whether a published file is still there as its step left it. Where its size is known, others may have
    /// appended to one that was appended to.
    pub fn holds(&self, path: &str, mode: WriteMode, sha256: &str, size_bytes: Option<u64>) -> bool {
        let Ok(Some(mut file)) = OutputPath::new(path).map_or(Ok(None), |path| self.find(&path)) else {
            return false;
        };
        let Ok(length) = file.metadata().map(|metadata| metadata.len()) else { return false };
        let may_be_longer = mode == WriteMode::Append;
        let size_bytes = size_bytes.unwrap_or(length);
        let fits = length == size_bytes || (may_be_longer && length > size_bytes);
        fits && digest_of_first(&mut file, size_bytes).is_ok_and(|found| found.as_str() == sha256)
    }

    /// A published file's content; `None` where there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let path = Self::check_path(path)?;
        let Some(file) = self.find(&path)? else { return Ok(None) };
        let mut content = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut content);
        read.map_err(|source| failed(path.as_str(), source))?;
        if content.len() as u64 > LARGEST {
            return Err(FileError::TooLarge { path: path.to_string(), size_bytes: content.len() as u64 });
        }
        Ok(Some(content))
    }

    fn find(&self, path: &OutputPath) -> Result<Option<File>, FileError> {
        let Some(folder) = self.folder_of(path, Way::AsItIs)? else { return Ok(None) };
        let (_, name) = path.split();
        folder.file(name).map_err(|obstacle| obstacle.on(path, path.as_str()))
    }

    fn root(&self, way: Way) -> Result<Option<Folder>, FileError> {
        let run = Folder::open(&self.run).map_err(|source| failed(self.run.display().to_string(), source))?;
        let on_the_way = [OUTPUTS, self.project.as_str()];
        walk(run, on_the_way, way).map_err(|(obstacle, at)| obstacle.on(&self.project, on_the_way[at]))
    }

    /// The folder in which a path's file lies; `None` where it does not exist and is not to be made.
    fn folder_of(&self, path: &OutputPath, way: Way) -> Result<Option<Folder>, FileError> {
        let Some(root) = self.root(way)? else { return Ok(None) };
        let (folders, _) = path.split();
        walk(root, folders, way)
            .map_err(|(obstacle, at)| obstacle.on(path, path.prefixes().nth(at).unwrap_or_default()))
    }
}

/// Goes down from folder to folder. An obstacle is told with the number of folders before it.
fn walk<'a>(
    from: Folder,
    down: impl IntoIterator<Item = &'a str>,
    way: Way,
) -> Result<Option<Folder>, (Obstacle, usize)> {
    let mut folder = from;
    for (at, name) in down.into_iter().enumerate() {
        let next = match way {
            Way::AsItIs => folder.folder(name),
            Way::Made => made(&folder, name, For::All).map(Some),
        };
        match next.map_err(|obstacle| (obstacle, at))? {
            Some(next) => folder = next,
            None => return Ok(None),
        }
    }
    Ok(Some(folder))
}

fn made(folder: &Folder, name: &str, who: For) -> Result<Folder, Obstacle> {
    if let Some(there) = folder.folder(name)? {
        return Ok(there);
    }
    folder.create_folder(name, who).map_err(Obstacle::Failed)?;
    // Gone again already: somebody is removing what this run makes.
    folder.folder(name)?.ok_or_else(|| Obstacle::Failed(io::ErrorKind::NotFound.into()))
}

/// The digest of a file's first bytes. A shorter file has another digest.
fn digest_of_first(file: &mut File, size_bytes: u64) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut left = file.take(size_bytes);
    let mut buffer = [0; 16 * 1024];
    loop {
        match left.read(&mut buffer)? {
            0 => return Ok(Digest::finish(hasher)),
            length => hasher.update(&buffer[..length]),
        }
    }
}
