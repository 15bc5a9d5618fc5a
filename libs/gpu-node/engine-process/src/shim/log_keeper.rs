//! Keeps one live log file: notes when it grew, and rotates it before it outgrows its bound.
//!
//! The engine writes the file itself, through a descriptor opened for appending; a shim that dies takes nothing
//! from it. The price is that rotation must copy and then cut the file under a writer that knows of nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orch_core::UnixMillis;

use super::rotation::{self, Bounds, read_exact_at};
use crate::logs::index::IndexEntry;
use crate::logs::index_path;
use crate::private_files;
use crate::spec::EngineSpec;
use crate::sys;
use crate::wait::{pause, wait_until};

/// A silence shorter than this still counts as growing.
const SILENCE: Duration = Duration::from_secs(2);
const RETENTION_INTERVAL: Duration = Duration::from_hours(1);
/// Copies begun anew because a flood outran the last one.
const COPY_TRIES: u32 = 3;
/// Tries to cut at a line end before half a line is accepted and blanked out.
const CUT_TRIES: u32 = 20;
const CUT_PAUSE: Duration = Duration::from_micros(200);
const HEAD_PATIENCE: Duration = Duration::from_millis(5);
/// Times a rotation waits for the writer to finish its line.
const PATIENCE: u32 = 2;
/// The longest half line that is looked for at the head of a file.
const HEAD_LIMIT: usize = 64 * 1024;

/// How soon the next look is needed, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    Silent,
    Growing,
    Flooding,
}

/// How to learn where the engine's last write ended. Comparing it with the size tells whether anything was
/// written between a look and a cut.
pub(super) enum Position {
    /// The open file that the engine writes through: it has one position for both.
    Shared(File),
    /// An adopted engine's own descriptor.
    OfProcess { pid: u32, descriptor: u32 },
}

impl Position {
    fn get(&self) -> Option<u64> {
        match self {
            Self::Shared(file) => (&*file).stream_position().ok(),
            Self::OfProcess { pid, descriptor } => crate::sys::file_position(*pid, *descriptor),
        }
    }
}

pub(super) struct LogKeeper {
    path: PathBuf,
    /// Opened without appending, to read, cut and blank.
    file: File,
    position: Position,
    index: Option<File>,
    index_size: u64,
    bounds: Bounds,
    /// The size at the last look.
    seen: u64,
    grew_at: Option<Instant>,
    /// The file may begin in the middle of a line.
    torn_head: bool,
    waited: u32,
    retention: Duration,
    retained_at: Option<Instant>,
}

impl LogKeeper {
    /// Opens the file an engine is to write to. Its predecessor's last line is ended if it was not.
    pub(super) fn open_for_engine(path: &Path) -> io::Result<File> {
        private_files::create_parent(path)?;
        let mut file = private_files::options().create(true).read(true).append(true).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let mut last = [b'\n'];
        if size > 0 {
            read_exact_at(&file, &mut last, size - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
        Ok(file)
    }

    pub(super) fn new(spec: &EngineSpec, path: &Path, position: Position) -> io::Result<Self> {
        let file = private_files::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let bounds = Bounds { max_bytes: spec.log_max_bytes.max(1), rotation: spec.log_rotation };
        rotation::recover(path, file.metadata()?.len(), bounds);
        let mut keeper = Self {
            path: path.to_owned(),
            file,
            position,
            index: None,
            index_size: 0,
            bounds,
            seen: 0,
            grew_at: None,
            torn_head: false,
            waited: 0,
            retention: Duration::from_hours(24 * u64::from(spec.log_retention_days)),
            retained_at: None,
        };
        keeper.open_index();
        Ok(keeper)
    }

    /// Goes on with an index that knows the file, or begins a new one with what the file's own time tells.
    fn open_index(&mut self) {
        let path = index_path(&self.path);
        let opened = private_files::options().create(true).append(true).open(&path);
        self.index = opened.ok();
        self.index_size =
            self.index.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
        let last = last_entry(&path);
        let size = self.size();
        let known = last.map_or(0, |entry| entry.size);
        if known > size {
            self.restart_index();
        }
        self.seen = known.min(size);
        if self.seen < size {
            let written = self.file.metadata().and_then(|data| data.modified()).ok();
            self.note(size, written.map_or_else(UnixMillis::now, millis_of));
        }
    }

    fn size(&self) -> u64 {
        self.size_now().unwrap_or(self.seen)
    }

    fn size_now(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }

    /// Notes growth and keeps the bounds. Errors of the disk are swallowed: the engine goes on, and so must its
    /// shim.
    pub(super) fn look(&mut self) -> Activity {
        let before = self.seen;
        let size = self.size();
        if size < self.seen {
            // Emptied by somebody else.
            self.restart_index();
            self.seen = 0;
        }
        if size > self.seen {
            // The clock is read after the size: no line may seem to be written later than it was seen.
            self.note(size, UnixMillis::now());
            self.grew_at = Some(Instant::now());
        }
        if self.torn_head {
            self.blank_head();
        }
        self.forget_old();
        let growth = size.saturating_sub(before);
        // As much again may come before the next look. A flood is over the bound between two looks anyhow.
        let expected = growth.min(self.bounds.max_bytes / 8);
        if size > 0 && size + self.index_size + expected >= self.bounds.max_bytes {
            self.rotate();
            return Activity::Flooding;
        }
        match self.grew_at {
            Some(at) if at.elapsed() < SILENCE => Activity::Growing,
            _ => Activity::Silent,
        }
    }

    fn note(&mut self, size: u64, at: UnixMillis) {
        self.seen = size;
        let mut line = Vec::with_capacity(40);
        let entry = IndexEntry { size, at };
        if entry.write(&mut line).is_ok()
            && let Some(index) = &mut self.index
            && index.write_all(&line).is_ok()
        {
            self.index_size += line.len() as u64;
        }
    }

    fn restart_index(&mut self) {
        if let Some(index) = &self.index
            && index.set_len(0).is_ok()
        {
            self.index_size = 0;
        }
    }

    fn forget_old(&mut self) {
        let due = self.retained_at.is_none_or(|at| at.elapsed() >= RETENTION_INTERVAL);
        if due && !self.retention.is_zero() {
            self.retained_at = Some(Instant::now());
            rotation::remove_older(&self.path, self.retention, self.bounds);
        }
    }

    /// Copies whole lines away, cuts the file, and gives the copies their names; or waits for the next look, when
    /// the writer may have finished its line.
    fn rotate(&mut self) {
        let size = self.size();
        if !self.ends_a_line(size) && self.waited < PATIENCE && size < 2 * self.bounds.max_bytes {
            self.waited += 1;
            return;
        }
        self.waited = 0;
        let mut copied = self.copy(size);
        if !self.take_out(&copied) {
            self.catch_up(&mut copied);
            self.cut(&mut copied);
        }
        // The other half is most likely on its way.
        wait_until(HEAD_PATIENCE, || {
            if self.torn_head {
                self.blank_head();
            }
            !self.torn_head
        });
        rotation::publish(&self.path, copied.pieces(), self.bounds);
        self.restart_index();
        self.seen = 0;
    }

    fn copy(&mut self, size: u64) -> rotation::Copied {
        if size > self.seen {
            self.note(size, UnixMillis::now());
        }
        rotation::copy(&self.path, &self.file, size, self.bounds)
    }

    /// Takes what is copied out of the file, in one step and whole blocks; what is copied of the next block is
    /// blanked out. What is written meanwhile stays.
    fn take_out(&mut self, copied: &rotation::Copied) -> bool {
        let end = copied.end();
        let block = sys::block_size(&self.file);
        let rest = end.checked_rem(block).unwrap_or(end);
        if rest == end || !self.ends_a_line(end) {
            return false;
        }
        // The system writes to disk first, with the writer waiting; what is there already holds nobody up.
        let _ = self.file.sync_data();
        if !sys::take_out_head(&self.file, end - rest) {
            return false;
        }
        if rest > 0 {
            let mut blanks = vec![b' '; rest as usize - 1];
            blanks.push(b'\n');
            // Left as they are, these lines are merely there twice.
            let _ = sys::write_all_at(&self.file, &blanks, 0);
        }
        self.torn_head = false;
        true
    }

    /// Copies again what a flood has written meanwhile, but does not chase it for ever.
    fn catch_up(&mut self, copied: &mut rotation::Copied) {
        for _ in 0..COPY_TRIES {
            let size = self.size();
            if copied.has_room_until(size) {
                break;
            }
            *copied = self.copy(size);
        }
    }

    /// Empties the file, at a line end if the writer ever stands at one. What is written between the last copy
    /// and the cut is lost; whether that was anything is known afterwards.
    fn cut(&mut self, copied: &mut rotation::Copied) {
        let mut cut_before = false;
        let mut copies = 0;
        for _ in 0..CUT_TRIES {
            let size = self.size();
            if size == 0 || !self.ends_a_line(size) {
                pause(CUT_PAUSE);
                continue;
            }
            if !cut_before {
                // A writer that outran the copies and stands still now has its last lines kept.
                if copies < COPY_TRIES && !copied.has_room_until(size) {
                    copies += 1;
                    *copied = self.copy(size);
                }
                copied.extend(&self.file, size, UnixMillis::now());
            }
            if self.size() != size {
                continue;
            }
            if self.file.set_len(0).is_err() {
                return;
            }
            cut_before = true;
            // Nothing was written since the look at the size: not before the cut, and not after it.
            if self.position.get() == Some(size) && self.size_now() == Some(0) {
                self.torn_head = false;
                return;
            }
        }
        // The writer never stood still at a line end. Bounds come first; half a line is blanked out later.
        let clean = !cut_before && self.size() == 0;
        let _ = self.file.set_len(0);
        self.torn_head = !clean;
    }

    fn ends_a_line(&self, size: u64) -> bool {
        let mut last = [0];
        size == 0 || (read_exact_at(&self.file, &mut last, size - 1).is_ok() && last == *b"\n")
    }

    /// Overwrites the half line at the head with blanks, as soon as its end is there.
    fn blank_head(&mut self) {
        let mut head = vec![0; HEAD_LIMIT];
        let Ok(count) = sys::read_at(&self.file, &mut head, 0) else { return };
        let end = head[..count].iter().position(|&byte| byte == b'\n');
        let Some(end) = end.or((count == HEAD_LIMIT).then_some(HEAD_LIMIT)) else { return };
        head[..end].fill(b' ');
        if sys::write_all_at(&self.file, &head[..end], 0).is_ok() {
            self.torn_head = false;
        }
    }
}

fn last_entry(path: &Path) -> Option<IndexEntry> {
    let mut file = File::open(path).ok()?;
    let size = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(size.saturating_sub(4096))).ok()?;
    let mut end = String::new();
    file.take(4096).read_to_string(&mut end).ok()?;
    end.lines().rev().find_map(IndexEntry::parse)
}

fn millis_of(time: std::time::SystemTime) -> UnixMillis {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
