//! A step's files between being written and having their names.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use sha2::{Digest as _, Sha256};
use workflow_spec::WriteMode;

use super::appends::{self, Append};
use super::media::media_type;
use super::{
    FileError, Folder, For, LARGEST, OutputFiles, OutputPath, PathRefusal, Way, WriteReason, Written,
    digest_of_first, failed, refused,
};
use crate::key::Digest;
use crate::store::Durability;

/// Of the names of staged files: nothing else in the folder begins so.
pub(super) const PREFIX: &str = "new-";

/// The files of one step. Dropped without being published, they are gone.
pub struct Staged<'a> {
    files: &'a OutputFiles,
    step: &'a str,
    pieces: Vec<Piece>,
    /// Names in the staging folder that have to go in the end.
    passing: Vec<String>,
}

/// One file's new content, or new end.
struct Piece {
    path: OutputPath,
    mode: WriteMode,
    staged_as: String,
    sha256: Digest,
    size_bytes: u64,
}

impl<'a> Staged<'a> {
    pub(super) const fn new(files: &'a OutputFiles, step: &'a str) -> Self {
        Self { files, step, pieces: Vec::new(), passing: Vec::new() }
    }

    /// Adds a file. Its content is on the disk when this returns, its path untouched.
    pub fn add(&mut self, path: &str, mode: WriteMode, content: &[u8]) -> Result<(), FileError> {
        let path = OutputFiles::check_path(path)?;
        let size_bytes = content.len() as u64;
        if size_bytes > LARGEST {
            return Err(FileError::TooLarge { path: path.to_string(), size_bytes });
        }
        let staged_as = self.passing_name();
        write_whole(&self.files.staging, &staged_as, content)
            .map_err(|source| failed(path.as_str(), source))?;
        self.pieces.push(Piece { path, mode, staged_as, sha256: Digest::of(content), size_bytes });
        Ok(())
    }

    /// A name in the staging folder that nobody else uses. What lies under it goes with this value.
    fn passing_name(&mut self) -> String {
        let mut random = [0; 16];
        // Without random numbers the name is taken by the second who asks, who is then told that it exists.
        let _told_on_collision = getrandom::fill(&mut random);
        let name = format!("{PREFIX}{}", hex::encode(random));
        self.passing.push(name.clone());
        name
    }

    /// Gives all files their names, in the order in which they were added. If one of them must not be written,
    /// none is.
    pub fn publish(mut self) -> Result<Vec<Written>, FileError> {
        let files = self.files;
        let _held = files.lock.hold()?;
        for piece in &self.pieces {
            judge(files, piece)?;
        }
        let pieces = std::mem::take(&mut self.pieces);
        pieces.iter().enumerate().map(|(position, piece)| self.place(position, piece)).collect()
    }

    fn place(&mut self, position: usize, piece: &Piece) -> Result<Written, FileError> {
        let path = &piece.path;
        let folder = self.files.folder_of(path, Way::Made)?.ok_or_else(|| gone(path))?;
        let (_, name) = path.split();
        let there = folder.file(name).map_err(|obstacle| obstacle.on(path, path.as_str()))?;
        let written = match (there, piece.mode) {
            (there, WriteMode::Append) => self.append(position, piece, &folder, there),
            (None, _) => self.put(piece, &folder, WriteReason::Created),
            (Some(there), _) if is_same(&there, piece) => Ok(piece.written(WriteReason::NoChange)),
            (Some(_), WriteMode::Overwrite) => self.put(piece, &folder, WriteReason::Overwritten),
            (Some(_), WriteMode::CreateNew) => return Err(FileError::Exists { path: path.to_string() }),
        };
        let written = written.map_err(|source| failed(path.as_str(), source))?;
        self.files.names.add(path);
        Ok(written)
    }

    fn put(&self, piece: &Piece, folder: &Folder, reason: WriteReason) -> io::Result<Written> {
        self.rename(&piece.staged_as, folder, piece)?;
        Ok(piece.written(reason))
    }

    fn rename(&self, staged_as: &str, folder: &Folder, piece: &Piece) -> io::Result<()> {
        let (_, name) = piece.path.split();
        self.files.staging.rename(staged_as, folder, name)?;
        if self.files.durability == Durability::Strict { folder.sync() } else { Ok(()) }
    }

    fn append(
        &mut self,
        position: usize,
        piece: &Piece,
        folder: &Folder,
        there: Option<File>,
    ) -> io::Result<Written> {
        let staging = &self.files.staging;
        let record = appends::name(self.step, position, piece.path.as_str());
        let earlier = appends::recorded(staging, &record)?.filter(|append| append.piece == piece.sha256);
        if let (Some(append), Some(mut file)) = (earlier, there.as_ref().map(File::try_clone).transpose()?) {
            file.rewind()?;
            if append.is_in(&mut file)? {
                return Ok(Written { wrote: false, ..piece.appended(&append) });
            }
        }
        let whole = self.passing_name();
        let append = join(&self.files.staging, &whole, there, piece)?;
        let passing = self.passing_name();
        appends::record(&self.files.staging, &record, &passing, &append)?;
        self.rename(&whole, folder, piece)?;
        Ok(piece.appended(&append))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        for name in &self.passing {
            let _published_or_never_made = self.files.staging.remove(name);
        }
    }
}

impl Piece {
    fn written(&self, reason: WriteReason) -> Written {
        Written {
            path: self.path.to_string(),
            sha256: self.sha256,
            size_bytes: self.size_bytes,
            wrote: reason != WriteReason::NoChange,
            reason,
            media_type: media_type(self.path.as_str()).to_owned(),
        }
    }

    fn appended(&self, append: &Append) -> Written {
        let reason = match append.created {
            true => WriteReason::Created,
            false if self.size_bytes == 0 => WriteReason::NoChange,
            false => WriteReason::Appended,
        };
        Written { sha256: append.sha256, size_bytes: append.size_bytes, ..self.written(reason) }
    }
}

/// Whether a piece may be written as far as can be told before anything is.
fn judge(files: &OutputFiles, piece: &Piece) -> Result<(), FileError> {
    let path = &piece.path;
    if let Some(other) = files.names.collision(&files.folder(), path) {
        return Err(refused(path.as_str(), PathRefusal::CaseCollision(other)));
    }
    match files.find(path)? {
        Some(there) if piece.mode == WriteMode::CreateNew && !is_same(&there, piece) => {
            Err(FileError::Exists { path: path.to_string() })
        }
        _ => Ok(()),
    }
}

/// A file that cannot be read counts as different.
fn is_same(there: &File, piece: &Piece) -> bool {
    let same_length = there.metadata().is_ok_and(|metadata| metadata.len() == piece.size_bytes);
    let mut there = there;
    same_length
        && there.rewind().is_ok()
        && there.try_clone().and_then(|mut file| digest_of_first(&mut file, piece.size_bytes)).ok()
            == Some(piece.sha256)
}

/// Writes the file as it is with the piece at its end.
fn join(staging: &Folder, name: &str, there: Option<File>, piece: &Piece) -> io::Result<Append> {
    let mut whole = Hashed { file: staging.create(name, For::All)?, hasher: Sha256::new() };
    let created = there.is_none();
    let mut size_bytes = 0;
    if let Some(mut there) = there {
        there.rewind()?;
        size_bytes += io::copy(&mut there, &mut whole)?;
    }
    let new_end = staging.file(&piece.staged_as).map_err(|_obstacle| io::ErrorKind::NotFound)?;
    size_bytes += io::copy(&mut new_end.ok_or(io::ErrorKind::NotFound)?, &mut whole)?;
    whole.file.sync_all()?;
    Ok(Append { piece: piece.sha256, sha256: Digest::finish(whole.hasher), size_bytes, created })
}

/// A file that is digested while it is written.
struct Hashed {
    file: File,
    hasher: Sha256,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write_whole(staging: &Folder, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = staging.create(name, For::All)?;
    file.write_all(content)?;
    file.sync_all()
}

fn gone(path: &OutputPath) -> FileError {
    failed(path.as_str(), io::ErrorKind::NotFound.into())
}
