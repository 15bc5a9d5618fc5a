//! Files and folders that only their owner may see: configs may hold keys.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Makes a folder and its missing parents with mode 0700. Folders that exist are left as they are.
pub(crate) fn create_private_folders(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Closes an existing folder to others. On Windows folders inherit their access from the profile folder.
#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "changing the mode can fail elsewhere"))]
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700))?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Replaces a file in one step, durably, with mode 0600.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private_options().open(path)?;
    file.write_all(content)?;
    file.commit()
}

#[cfg(unix)]
fn private_options() -> atomic_write_file::OpenOptions {
    use atomic_write_file::unix::OpenOptionsExt as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = atomic_write_file::OpenOptions::new();
    options.preserve_mode(false).mode(0o600);
    options
}

/// Here files inherit their access from the profile folder.
#[cfg(not(unix))]
fn private_options() -> atomic_write_file::OpenOptions {
    atomic_write_file::OpenOptions::new()
}

/// Whether this user may create a file in a folder: asked, not tried, because reading never writes.
pub(crate) fn is_writable(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use nix::unistd::{AccessFlags, access};
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
    }
    #[cfg(not(unix))]
    {
        fs::metadata(folder).is_ok_and(|metadata| !metadata.permissions().readonly())
    }
}

/// Whether a path belongs to the user who runs this.
pub(crate) fn is_own(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).is_ok_and(|metadata| metadata.uid() == nix::unistd::geteuid().as_raw())
    }
    #[cfg(not(unix))]
    {
        path.exists()
    }
}
