//! Folders held open: every name is looked up in the folder itself, so that nobody can swap a link in between.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::libc::mode_t;
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{For, Obstacle};

/// An open folder.
pub(crate) struct Folder(OwnedFd);

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// A pipe in a file's place must not hold the reader up.
const FILE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

impl For {
    /// The rights among these that they get. The system takes away what the person's mask says.
    const fn of(self, rights: mode_t) -> mode_t {
        match self {
            Self::Owner => rights & 0o700,
            Self::All => rights,
        }
    }
}

impl Folder {
    /// A folder whose path is trusted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// A folder in this one; `None` where there is nothing of this name.
    pub(crate) fn folder(&self, name: &str) -> Result<Option<Self>, Obstacle> {
        match openat(&self.0, name, FOLDER | OFlag::O_RDONLY, Mode::empty()) {
            Ok(folder) => Ok(Some(Self(folder))),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) if self.is_link(name) => Err(Obstacle::Link),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Obstacle::NoFolder),
            Err(error) => Err(Obstacle::Failed(error.into())),
        }
    }

    /// Creates a folder in this one; nothing happens where there is something of this name.
    pub(crate) fn create_folder(&self, name: &str, who: For) -> io::Result<()> {
        match mkdirat(&self.0, name, Mode::from_bits_truncate(who.of(0o777))) {
            Err(Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn is_link(&self, name: &str) -> bool {
        let status = fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        status.is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
    }

    /// A regular file in this folder, open for reading; `None` where there is nothing of this name.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>, Obstacle> {
        let file: File = match openat(&self.0, name, FILE | OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(Obstacle::Link),
            // A socket, or a device without a driver.
            Err(Errno::ENXIO | Errno::ENODEV | Errno::EOPNOTSUPP) => return Err(Obstacle::NoFile),
            Err(error) => return Err(Obstacle::Failed(error.into())),
        };
        let is_file = file.metadata().map_err(Obstacle::Failed)?.is_file();
        if is_file { Ok(Some(file)) } else { Err(Obstacle::NoFile) }
    }

    /// A new file in this folder. Fails where there is something of this name.
    pub(crate) fn create(&self, name: &str, who: For) -> io::Result<File> {
        let mode = Mode::from_bits_truncate(who.of(0o666));
        let created = openat(&self.0, name, FILE | OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, mode)?;
        Ok(created.into())
    }

    /// Gives a file of this folder a name in another one, in place of what has it there. A link in its place is
    /// replaced, not followed.
    pub(crate) fn rename(&self, name: &str, target: &Self, new_name: &str) -> io::Result<()> {
        Ok(renameat(&self.0, name, &target.0, new_name)?)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Makes the names in it survive a loss of power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::from(self.0.try_clone()?).sync_all()
    }
}
