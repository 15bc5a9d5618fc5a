//! Results by key: a folder of files that all runs of a home share, and one of the same kind in each run.
//!
//! The file system is the index. An entry appears whole or not at all, is never changed, and is believed only
//! after its digests were checked; whatever else lies under its name is told and written over by the next result.

mod disk;
mod entry;
mod flights;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

pub use disk::Durability;
pub(crate) use disk::remove_forgotten;
use disk::{Placed, Unplaced, Unread, read_bounded};
pub(crate) use entry::output_digest;
pub use entry::{Blob, Entry, Refusal};
use flights::Flights;
pub use flights::{Follower, Leader, Seat};
use orch_core::UnixMillis;

use crate::key::{Digest, Key, KeyDocument};
use entry::LARGEST;

/// A buffer that grew beyond this is not kept for the next read.
const KEPT_BUFFER: usize = 1 << 20;

/// A folder of results.
pub struct Store {
    root: PathBuf,
    layout: Layout,
    flights: Flights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Shared by many runs: a folder for each first two digits.
    Home,
    /// One run's own, flat.
    Run,
}

/// What lies under a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Hit(Box<Entry>),
    Miss,
    /// Something, but nothing that can be used.
    Refused(Refusal),
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// This very output was there.
    Same,
    /// A sound entry with another output was there first, and stays: whoever used it must find it again.
    Other,
}

/// The store could not keep something. What it held before, it still holds.
#[derive(Debug, thiserror::Error)]
#[error("cannot store {what} below {}; check free space and permissions there", .root.display())]
pub struct StoreError {
    what: String,
    root: PathBuf,
    #[source]
    source: io::Error,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Store {
    /// The results of a home: `cache/<first two digits>/<key>.json`.
    pub fn home(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), layout: Layout::Home, flights: Flights::default() }
    }

    /// The results that one run used: `.cache/<key>.json`.
    pub fn run(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), layout: Layout::Run, flights: Flights::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what crashed writers left a day ago or earlier. For those who are going to write.
    pub fn clean(&self) {
        remove_forgotten(&self.root.join(disk::UNFINISHED), "", UnixMillis::now());
    }

    /// Where a key's entry lies or would lie.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.path_of(&[], key.as_str(), ".json")
    }

    fn path_of(&self, folders: &[&str], digits: &str, extension: &str) -> PathBuf {
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + 96);
        path.push(&self.root);
        path.extend(folders);
        if self.layout == Layout::Home {
            path.push(&digits[..2]);
        }
        path.push(digits);
        path.as_mut_os_string().push(extension);
        path
    }

    /// Looks a result up and checks it.
    pub fn find(&self, key: &Key) -> Found {
        let read = read(&self.path(key), |text| entry::read(text, key));
        match read {
            Ok(Some(entry)) => Found::Hit(Box::new(entry)),
            Ok(None) => Found::Miss,
            Err(refusal) => Found::Refused(refusal),
        }
    }

    /// Keeps a result. In a home the first of several with the same key stays, see [`Put`]; in a run the last.
    pub fn put(&self, entry: &Entry, durability: Durability) -> Result<Put, StoreError> {
        let text = entry::write(entry);
        let place = || {
            check_size(text.len())?;
            let path = self.path(&entry.key());
            match Unplaced::write(&self.root, &text, durability)?.place_new(&path)? {
                Placed::New => Ok(Put::Stored),
                Placed::WasThere => self.put_beside(entry, &text, durability),
            }
        };
        place().map_err(|source| self.error(entry.key().as_str(), source))
    }

    /// Something lies under the key. What is damaged is replaced.
    fn put_beside(&self, entry: &Entry, text: &[u8], durability: Durability) -> io::Result<Put> {
        match self.find(&entry.key()) {
            Found::Hit(there) if there.out() == entry.out() => Ok(Put::Same),
            Found::Hit(_) if self.layout == Layout::Home => Ok(Put::Other),
            // A run has one writer, who knows better than its earlier self.
            Found::Hit(_) | Found::Miss | Found::Refused(_) => {
                Unplaced::write(&self.root, text, durability)?.place_over(&self.path(&entry.key()))?;
                Ok(Put::Stored)
            }
        }
    }

    /// Keeps the content of a file that belongs to a result. `path` is what the result calls it.
    pub fn put_blob(&self, path: &str, content: &[u8], durability: Durability) -> Result<Blob, StoreError> {
        check_size(content.len()).map_err(|source| self.error(path, source))?;
        let sha256 = Digest::of(content);
        let blob = Blob { path: path.to_owned(), sha256, size_bytes: content.len() as u64 };
        if matches!(self.blob(&blob), Ok(Some(_))) {
            return Ok(blob);
        }
        Unplaced::write(&self.root, content, durability)
            .and_then(|unplaced| unplaced.place_over(&self.blob_path(&blob)))
            .map_err(|source| self.error(path, source))?;
        Ok(blob)
    }

    /// The content of a file that belongs to a result; `None` where it is gone.
    pub fn blob(&self, blob: &Blob) -> Result<Option<Vec<u8>>, Refusal> {
        read(&self.blob_path(blob), |content| {
            if Digest::of(content) == blob.sha256 { Ok(content.to_vec()) } else { Err(Refusal::OtherOutput) }
        })
    }

    fn blob_path(&self, blob: &Blob) -> PathBuf {
        self.path_of(&["blobs"], blob.sha256.as_str(), "")
    }

    /// Keeps a request that led to no result, so that it can be compared with later ones.
    pub fn keep_document(&self, document: &KeyDocument) -> Result<(), StoreError> {
        let path = self.path_of(&["requests"], document.key().as_str(), ".json");
        Unplaced::write(&self.root, document.text().as_bytes(), Durability::Relaxed)
            .and_then(|unplaced| unplaced.place_new(&path))
            .map(|_placed| ())
            .map_err(|source| self.error(document.key().as_str(), source))
    }

    /// The request under this key: of a result, or of one that was kept without.
    pub fn document(&self, key: &Key) -> Option<KeyDocument> {
        if let Found::Hit(entry) = self.find(key) {
            return Some(entry.document);
        }
        let path = self.path_of(&["requests"], key.as_str(), ".json");
        let document = read(&path, |text| {
            let text = std::str::from_utf8(text).map_err(|_not_text| Refusal::Changed)?;
            Ok(KeyDocument::stored(text))
        });
        document.ok().flatten().filter(|document| document.key() == *key)
    }

    /// Makes entries of another store appear here too: the same file where the file system can do that, else a
    /// copy. Those that are there already, or are gone, are passed over. Answers how many could not be made.
    pub fn link_used<'a>(&self, from: &Store, keys: impl IntoIterator<Item = &'a Key>) -> usize {
        let mut failed = 0;
        for key in keys {
            failed += usize::from(self.link(from, key).is_err());
        }
        failed
    }

    fn link(&self, from: &Store, key: &Key) -> io::Result<()> {
        let (source, target) = (from.path(key), self.path(key));
        let passed_over = |error: &io::Error| {
            error.kind() == io::ErrorKind::AlreadyExists
                || (error.kind() == io::ErrorKind::NotFound && !source.exists())
        };
        match std::fs::hard_link(&source, &target) {
            Err(error) if passed_over(&error) => Ok(()),
            Err(_no_folder_or_no_links) => {
                let content = std::fs::read(&source)?;
                Unplaced::write(&self.root, &content, Durability::Relaxed)?.place_new(&target)?;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes a seat for a request, so that equal ones in this process are made once.
    pub fn join(&self, key: &Key) -> Seat {
        self.flights.join(key)
    }

    fn error(&self, what: &str, source: io::Error) -> StoreError {
        StoreError { what: what.to_owned(), root: self.root.clone(), source }
    }
}

/// `None` where there is no such file.
fn read<T>(path: &Path, judge: impl FnOnce(&[u8]) -> Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = match read_bounded(path, LARGEST, buffer) {
            Ok(()) => judge(buffer).map(Some),
            Err(Unread::Absent) => Ok(None),
            Err(Unread::NoFile) => Err(Refusal::NoFile),
            Err(Unread::TooLarge) => Err(Refusal::TooLarge),
            Err(Unread::Failed(error)) => Err(Refusal::Unreadable(error.to_string())),
        };
        if buffer.capacity() > KEPT_BUFFER {
            *buffer = Vec::new();
        }
        read
    })
}

fn check_size(size: usize) -> io::Result<()> {
    if size as u64 <= LARGEST {
        return Ok(());
    }
    let message = format!("it is larger than {} MiB", LARGEST >> 20);
    Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
}

#[cfg(test)]
mod tests;
