//! Files and folders that only their owner may read: prompts and answers are in them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Creates one folder.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    builder().create(path)
}

/// Creates a folder and its missing parents; one that is there is left as it is.
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    builder().recursive(true).create(path)
}

fn builder() -> DirBuilder {
    #[allow(unused_mut, reason = "modes are known on Unix only")]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Open options that create files for their owner alone.
pub(crate) fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "modes are known on Unix only")]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Writes a file so that readers see the old or the new content. There is one writer at a time, so the name
/// beside it can be always the same: what a killed one has left is written over.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = options().write(true).create(true).truncate(true).open(&beside)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&beside, path)
}

/// Makes a file's content, or a folder's names, outlive a power loss.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    // Elsewhere names are kept by the file system's own journal, and folders cannot be opened.
    if cfg!(unix) || path.is_file() {
        return File::options().read(true).write(!path.is_dir()).open(path)?.sync_all();
    }
    Ok(())
}
