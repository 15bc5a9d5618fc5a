//! Whole files or none: written under a passing name, then given their own. Everything here may hold prompts, so it
//! is for its owner only.

use std::fs::{DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use orch_core::UnixMillis;
use tempfile::NamedTempFile;

/// Where files lie until they are whole. One folder, so that what a crash left is found without a search.
pub(super) const UNFINISHED: &str = ".tmp";

/// Nobody takes a day to write a file.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a write waits until it would survive a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It survives the end of this process; the system writes it to the disk in its own time.
    #[default]
    Relaxed,
    /// It is on the disk.
    Strict,
}

/// What became of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    New,
    /// A file of this name was there and stays.
    WasThere,
}

/// A whole file that does not have its name yet. Dropped, it is gone.
pub(crate) struct Unplaced {
    file: NamedTempFile,
    durability: Durability,
}

impl Unplaced {
    /// Writes `content` below `root`.
    pub(crate) fn write(root: &Path, content: &[u8], durability: Durability) -> io::Result<Self> {
        let folder = root.join(UNFINISHED);
        let mut file = match NamedTempFile::new_in(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folder(&folder)?;
                NamedTempFile::new_in(&folder)?
            }
            other => other?,
        };
        file.write_all(content)?;
        if durability == Durability::Strict {
            file.as_file().sync_all()?;
        }
        Ok(Self { file, durability })
    }

    /// Gives it its name, unless there is a file of that name.
    pub(crate) fn place_new(self, path: &Path) -> io::Result<Placed> {
        self.place(path, |file| file.persist_noclobber(path))
    }

    /// Gives it its name, in place of what has it. A folder of that name, which is none of ours, is put aside.
    pub(crate) fn place_over(self, path: &Path) -> io::Result<()> {
        if path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
            put_aside(path)?;
        }
        self.place(path, |file| file.persist(path)).map(|_placed| ())
    }

    fn place(
        self,
        path: &Path,
        persist: impl Fn(NamedTempFile) -> Result<File, tempfile::PersistError>,
    ) -> io::Result<Placed> {
        let folder = path.parent().unwrap_or(path);
        let placed = match persist(self.file) {
            Err(refused) if refused.error.kind() == io::ErrorKind::NotFound => {
                create_folder(folder)?;
                persist(refused.file)
            }
            other => other,
        };
        match placed {
            Ok(_file) => {}
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Placed::WasThere);
            }
            Err(refused) => return Err(refused.error),
        }
        if self.durability == Durability::Strict {
            sync_folder(folder)?;
        }
        Ok(Placed::New)
    }
}

/// Gives a folder a name beside its own that nothing else has.
fn put_aside(path: &Path) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".aside-{}", UnixMillis::now().0));
    tracing::warn!(path = %path.display(), aside = %beside.display(), "a folder lay where a result is stored");
    std::fs::rename(path, beside)
}

/// Creates a folder and those above it, for their owner only.
fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the names in a folder survive a loss of power.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Here names are written with the files.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "other systems can fail")]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes what a crash left unfinished a day ago. What cannot be removed is left for the next time.
/// Only files whose names begin with `prefix` are meant.
pub(crate) fn remove_forgotten(folder: &Path, prefix: &str, now: UnixMillis) {
    let Ok(left) = std::fs::read_dir(folder) else { return };
    let ours = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    for entry in left.flatten().filter(ours) {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let written = written.ok().and_then(|written| written.duration_since(UNIX_EPOCH).ok());
        let written = written.map(|since_epoch| UnixMillis(since_epoch.as_millis() as i64));
        if written.is_some_and(|written| now.since(written) > FORGOTTEN_AFTER) {
            let _next_time = std::fs::remove_file(entry.path());
        }
    }
}

/// Why a file was not read.
pub(crate) enum Unread {
    Absent,
    NoFile,
    TooLarge,
    Failed(io::Error),
}

/// Reads a whole file of at most `limit` bytes. What is no file, a pipe for example, is not waited for.
pub(crate) fn read_bounded(path: &Path, limit: u64, buffer: &mut Vec<u8>) -> Result<(), Unread> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Absent),
        Err(error) => return Err(Unread::Failed(error)),
    };
    let metadata = file.metadata().map_err(Unread::Failed)?;
    if !metadata.is_file() {
        return Err(Unread::NoFile);
    }
    let length = metadata.len();
    if length > limit {
        return Err(Unread::TooLarge);
    }
    buffer.clear();
    buffer.resize(length as usize, 0);
    match file.read_exact(buffer) {
        // Entries do not change; one that became shorter is judged as if it had been so from the start.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            buffer.clear();
            Ok(())
        }
        other => other.map_err(Unread::Failed),
    }
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}
