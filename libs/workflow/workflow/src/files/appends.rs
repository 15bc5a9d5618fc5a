//! What a step has appended to a file, so that it is not appended again after a crash between the appending and
//! its record in the journal.
//!
//! Before a file with a new end takes the old one's place, the record says how the file will look: its length and
//! digest with the new end. After a crash the file tells by itself which of the two happened: if its first bytes
//! are those of the record, the end is in it, whatever others appended since. Records stay: a step that comes
//! again with the same text in the same run has appended it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use serde::{Deserialize, Serialize};

use super::{Folder, For, Obstacle, digest_of_first};
use crate::key::Digest;

const FOLDER: &str = "appends";
/// A record has some two hundred bytes.
const LARGEST_RECORD: u64 = 4096;

/// One appended text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    /// Of what was appended.
    pub piece: Digest,
    /// Of the whole file with it.
    pub sha256: Digest,
    pub size_bytes: u64,
    /// Whether the file began with it.
    pub created: bool,
}

impl Append {
    /// Whether a file begins as this append left it.
    pub(crate) fn is_in(&self, file: &mut File) -> io::Result<bool> {
        let long_enough = file.metadata()?.len() >= self.size_bytes;
        Ok(long_enough && digest_of_first(file, self.size_bytes)? == self.sha256)
    }
}

/// Where a step's append to a path is recorded. `position` is that of the file among the step's.
pub(crate) fn name(step: &str, position: usize, path: &str) -> String {
    Digest::of(format!("{step}\0{position}\0{path}").as_bytes()).to_string()
}

/// What was recorded. A record that cannot be understood, being of another version or torn by a loss of power, is
/// as good as none.
pub(crate) fn recorded(staging: &Folder, name: &str) -> io::Result<Option<Append>> {
    let Some(folder) = staging.folder(FOLDER).map_err(cause)? else { return Ok(None) };
    let Some(file) = folder.file(name).map_err(cause)? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(LARGEST_RECORD).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// Records an append that is about to happen. `passing` is a name of its own in the staging folder.
pub(crate) fn record(staging: &Folder, name: &str, passing: &str, append: &Append) -> io::Result<()> {
    let folder = super::made(staging, FOLDER, For::Owner).map_err(cause)?;
    let mut file = staging.create(passing, For::Owner)?;
    file.write_all(&serde_json::to_vec(append)?)?;
    file.sync_all()?;
    staging.rename(passing, &folder, name)?;
    folder.sync()
}

fn cause(obstacle: Obstacle) -> io::Error {
    match obstacle {
        Obstacle::Failed(error) => error,
        Obstacle::Link | Obstacle::NoFolder | Obstacle::NoFile => {
            io::Error::other("something else lies where appends are recorded")
        }
    }
}
