//! Looking through, and securing, the folder of one engine.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orch_core::ByteCount;

/// Deeper than any build puts its server.
const DEPTH: usize = 8;
/// A scanner looks at some hundred megabytes in less.
const SCANNER_LIMIT: Duration = Duration::from_secs(5);
const SCANNER_PAUSE: Duration = Duration::from_millis(50);
/// More than any build has files.
const ENTRIES: usize = 20_000;

/// Files below `root`, links to files included, links to folders not followed. Bounded in depth and number.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            seen += 1;
            if seen > ENTRIES {
                return Err(io::Error::other("too many files"));
            }
            if !entry.file_type()?.is_dir() {
                found.push(entry.path());
            } else if depth < DEPTH {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    Ok(found)
}

/// The file called `name` that lies nearest to `root`; the first by name where several lie equally near.
pub(crate) fn find(root: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let mut hits: Vec<PathBuf> = files(root)?
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|file| file == name) && path.is_file())
        .collect();
    hits.sort_by_key(|path| (path.components().count(), path.clone()));
    Ok(hits.into_iter().next())
}

/// What all files take together.
pub(crate) fn size(root: &Path) -> io::Result<ByteCount> {
    let mut total = 0;
    for file in files(root)? {
        total += fs::symlink_metadata(file)?.len();
    }
    Ok(ByteCount(total))
}

/// Hands every file to the disk: what the registry names must survive a power loss whole.
pub(crate) fn sync(root: &Path) -> io::Result<()> {
    for file in files(root)? {
        if fs::symlink_metadata(&file)?.is_file() {
            // Windows syncs only what is open for writing.
            File::options().read(true).write(cfg!(windows)).open(file)?.sync_all()?;
        }
    }
    sync_folder(root)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file, and keeps names with its own journal.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Gives a folder its final name. On Windows a scanner may hold a file in it that has just been written: then it is
/// tried again for a moment.
pub(crate) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    let end = Instant::now() + SCANNER_LIMIT;
    loop {
        match fs::rename(from, to) {
            Err(error)
                if cfg!(windows)
                    && error.kind() == io::ErrorKind::PermissionDenied
                    && Instant::now() < end =>
            {
                std::thread::park_timeout(SCANNER_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Whether this is a file that may be executed.
pub(crate) fn is_executable(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    #[cfg(unix)]
    let runnable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runnable = true;
    metadata.is_file() && runnable
}

/// Archives made elsewhere may have lost the mode.
#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "changing the mode can fail elsewhere"))]
pub(crate) fn make_executable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o755))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Creates a folder with its parents, readable by its owner alone.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
