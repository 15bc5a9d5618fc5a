//! Folders by path, for systems that cannot look names up in an open folder: each step of the way is checked for
//! links before and after it is used.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{For, Obstacle};

/// A folder that is reached without links.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A folder whose path is trusted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::canonicalize(path).map(Self)
    }

    /// A folder in this one; `None` where there is nothing of this name.
    pub(crate) fn folder(&self, name: &str) -> Result<Option<Self>, Obstacle> {
        let path = self.0.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => Err(Obstacle::Link),
            Ok(metadata) if metadata.is_dir() => Ok(Some(Self(path))),
            Ok(_) => Err(Obstacle::NoFolder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Obstacle::Failed(error)),
        }
    }

    /// Creates a folder in this one; nothing happens where there is something of this name.
    pub(crate) fn create_folder(&self, name: &str, _who: For) -> io::Result<()> {
        match fs::create_dir(self.0.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// A regular file in this folder, open for reading; `None` where there is nothing of this name.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>, Obstacle> {
        let path = self.0.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => return Err(Obstacle::Link),
            Ok(metadata) if !metadata.is_file() => return Err(Obstacle::NoFile),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Obstacle::Failed(error)),
        }
        let file = File::open(&path).map_err(Obstacle::Failed)?;
        self.check_way()?;
        Ok(Some(file))
    }

    /// The way here must still be free of links after something was opened on it.
    fn check_way(&self) -> Result<(), Obstacle> {
        let way = fs::canonicalize(&self.0).map_err(Obstacle::Failed)?;
        if way == self.0 { Ok(()) } else { Err(Obstacle::Link) }
    }

    /// A new file in this folder. Fails where there is something of this name.
    pub(crate) fn create(&self, name: &str, _who: For) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.0.join(name))
    }

    /// Gives a file of this folder a name in another one, in place of what has it there. A link in its place is
    /// replaced, not followed.
    pub(crate) fn rename(&self, name: &str, target: &Self, new_name: &str) -> io::Result<()> {
        if target.check_way().is_err() {
            return Err(io::Error::other("the folder was replaced by a link"));
        }
        fs::rename(self.0.join(name), target.0.join(new_name))
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    /// Here names are written with the files.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "other systems can fail")]
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
