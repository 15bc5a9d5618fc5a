//! Files and folders that only their owner may read: logs, locks and handoff files can hold prompts and keys.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::sys;

/// Creates a folder and its missing parents, readable by the owner only.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates the folder a file is to lie in.
pub(crate) fn create_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => create_folder(parent),
        _ => Ok(()),
    }
}

/// Open options that create with mode 0600.
#[cfg(unix)]
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Here a user's own folders are private by their access lists.
#[cfg(not(unix))]
pub(crate) fn options() -> OpenOptions {
    OpenOptions::new()
}

#[cfg(unix)]
fn atomic_options() -> atomic_write_file::OpenOptions {
    use atomic_write_file::unix::OpenOptionsExt as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = atomic_write_file::OpenOptions::new();
    options.mode(0o600).preserve_mode(false);
    options
}

#[cfg(not(unix))]
fn atomic_options() -> atomic_write_file::OpenOptions {
    atomic_write_file::OpenOptions::new()
}

/// Writes a whole file so that readers see either the old or the new content, mode 0600, and its folders where they are
/// missing.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    create_parent(path)?;
    sys::patiently(|| {
        let mut file = atomic_options().open(path)?;
        file.write_all(content)?;
        file.commit()
    })
}

/// Reads a file of at most `limit` bytes; a larger one is refused, because files of this kind never are.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Room for nearly all of these files: an empty vector would be filled in ever larger small steps.
    let mut content = Vec::with_capacity(4096);
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(content)
}
