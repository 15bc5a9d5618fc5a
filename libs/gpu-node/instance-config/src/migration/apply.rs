//! Writing what was planned: the old file is kept beside the new one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, UnixMillis};
use serde_json::json;

use super::ConfigPlan;
use crate::document::read_bytes;
use crate::loaded::{write_document, write_failure};

impl ConfigPlan {
    /// Keeps the old file as `config.json.v<version>.backup`, or with a number behind it where that exists, and writes
    /// the new one. Returns the backup. The caller holds the instance's lock. A file that has changed since it was
    /// planned for is left alone.
    pub fn apply(&self, now: UnixMillis) -> Result<PathBuf, Failure> {
        if read_bytes(&self.path).ok().as_ref() != Some(&self.source) {
            let message = format!("{} has changed in the meantime", self.path.display());
            return Err(Failure::new(ExitCode::General, message).hint("run the command again"));
        }
        let backup = self.keep_old().map_err(|error| write_failure(&self.path, &error))?;
        let mut document = self.document.clone();
        document.insert("updated_at".to_owned(), json!(now.to_rfc3339()));
        write_document(&self.path, &document)?;
        Ok(backup)
    }

    fn keep_old(&self) -> io::Result<PathBuf> {
        let first = with_suffix(&self.path, &format!(".v{}.backup", self.from_version));
        let others = (1..MOST_BACKUPS).map(|number| with_suffix(&first, &format!(".{number}")));
        for backup in std::iter::once(first.clone()).chain(others) {
            match create_private_file(&backup) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return keep(created?, &self.source).map(|()| backup),
            }
        }
        Err(io::Error::other("there are too many backups beside it"))
    }
}

fn keep(mut file: File, source: &[u8]) -> io::Result<()> {
    file.write_all(source)?;
    file.sync_all()
}

/// Nobody keeps more on purpose.
const MOST_BACKUPS: u32 = 10_000;

/// A file that was not there before: what exists is never overwritten.
fn create_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
