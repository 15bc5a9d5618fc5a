//! The files a rotation leaves: `.1` is the youngest, each ends with a whole line and has its own index.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use orch_core::UnixMillis;

use crate::logs::index::{IndexEntry, section};
use crate::logs::{index_path, rotated_path, with_suffix};
use crate::private_files::{self, read_bounded};
use crate::sys;

const BLOCK: usize = 32 * 1024;
/// An index is a small part of its log; one larger than this is not worth reading.
const INDEX_LIMIT: u64 = 64 * 1024 * 1024;
/// A line end is looked for within this distance; a longer line is cut in the middle.
const LINE_SEARCH: u64 = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of each file, its index included.
    pub max_bytes: u64,
    /// Files kept beside the live one.
    pub rotation: u32,
}

/// Copies that wait for the cut, oldest first, named `<log>.rotating.<n>`.
pub(super) struct Copied {
    base: PathBuf,
    pieces: u32,
    /// The youngest piece and its present size.
    last: Option<(File, u64)>,
    /// Up to where the live file is copied.
    end: u64,
    room: u64,
}

/// Copies the newest whole lines of the live file that the bounds allow to keep, in as many pieces as needed.
/// A disk that is full costs the copies, never the cut.
pub(super) fn copy(live: &Path, file: &File, size: u64, bounds: Bounds) -> Copied {
    remove_waiting(live);
    let mut copied = Copied { base: live.to_owned(), pieces: 0, last: None, end: size, room: 0 };
    let index = read_index(live);
    let index_bytes = index.len() as u64 * 24;
    let room = bounds.max_bytes.saturating_sub(index_bytes).max(bounds.max_bytes / 2).max(1);
    copied.room = room;
    let cuts = plan(file, size, room, bounds.rotation);
    for pair in cuts.windows(2) {
        if copied.add_piece(file, &index, pair[0], pair[1]).is_err() {
            remove_waiting(live);
            copied.pieces = 0;
            copied.last = None;
            break;
        }
    }
    copied.end = cuts.last().copied().unwrap_or(size);
    copied
}

/// Offsets at line ends between which the pieces lie: all of them at most `room`, and of about the same size.
fn plan(file: &File, size: u64, room: u64, rotation: u32) -> Vec<u64> {
    let end = line_end_before(file, size);
    let begin = blank_head(file).min(end);
    let kept = (end - begin).min(room.saturating_mul(u64::from(rotation)));
    if kept == 0 {
        return Vec::new();
    }
    // A piece may be longer than planned by part of a line.
    let planned = (room - room / 16).max(1);
    let count = kept.div_ceil(planned).min(u64::from(rotation)).max(1);
    let start = end - kept.min(planned * count);
    let start = if start == begin { begin } else { line_end_before(file, start + room / 16).max(start) };
    let step = (end - start).div_ceil(count);
    let mut cuts = vec![start];
    for number in 1..count {
        let cut = line_end_before(file, start + step * number);
        if cut > *cuts.last().unwrap_or(&start) {
            cuts.push(cut);
        }
    }
    if end > *cuts.last().unwrap_or(&start) {
        cuts.push(end);
    }
    cuts
}

/// The length of a first line of blanks, which an earlier cut left in the place of half a line.
fn blank_head(file: &File) -> u64 {
    let mut head = vec![0; BLOCK];
    let count = sys::read_at(file, &mut head, 0).unwrap_or(0);
    match head[..count].iter().position(|&byte| byte != b' ') {
        Some(end) if end > 0 && head[end] == b'\n' => end as u64 + 1,
        _ => 0,
    }
}

/// The offset behind the last line end before `offset`; `offset` itself where no line ends for long.
fn line_end_before(file: &File, offset: u64) -> u64 {
    let lowest = offset.saturating_sub(LINE_SEARCH);
    let mut block = vec![0; BLOCK];
    let mut end = offset;
    while end > lowest {
        let start = end.saturating_sub(BLOCK as u64).max(lowest);
        let part = &mut block[..(end - start) as usize];
        if read_exact_at(file, part, start).is_err() {
            return offset;
        }
        if let Some(position) = part.iter().rposition(|&byte| byte == b'\n') {
            return start + position as u64 + 1;
        }
        end = start;
    }
    offset
}

impl Copied {
    pub(super) fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Up to where the live file is copied.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn add_piece(&mut self, file: &File, index: &[IndexEntry], from: u64, to: u64) -> io::Result<()> {
        let path = waiting_path(&self.base, self.pieces + 1);
        let piece = private_files::options().create(true).write(true).truncate(true).open(&path)?;
        copy_range(file, &piece, from, to)?;
        let mut lines = Vec::new();
        for entry in section(index, from, to) {
            entry.write(&mut lines)?;
        }
        private_files::options()
            .create(true)
            .write(true)
            .truncate(true)
            .open(index_path(&path))?
            .write_all(&lines)?;
        self.pieces += 1;
        self.last = Some((piece, to - from));
        Ok(())
    }

    /// Whether what was written since the copy can still be added to it.
    pub(super) fn has_room_until(&self, size: u64) -> bool {
        let more = size.saturating_sub(self.end);
        self.last.as_ref().is_none_or(|(_, length)| *length + more <= self.room)
    }

    /// Adds what was written since the copy, up to a line end, as far as there is room.
    pub(super) fn extend(&mut self, file: &File, size: u64, at: UnixMillis) {
        let more = size.saturating_sub(self.end);
        if more == 0 || !self.has_room_until(size) {
            return;
        }
        let Some((piece, length)) = &mut self.last else { return };
        if copy_range(file, piece, self.end, size).is_ok() {
            *length += more;
            self.end = size;
            let entry = IndexEntry { size: *length, at };
            let path = index_path(&waiting_path(&self.base, self.pieces));
            // Without its entry the lines only lack their time.
            let _ = File::options().append(true).open(path).and_then(|mut index| entry.write(&mut index));
        } else {
            // Half a copy would tear a line.
            let _ = piece.set_len(*length);
        }
    }
}

fn copy_range(from: &File, mut to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut offset = start;
    while offset < end {
        let part = &mut block[..BLOCK.min((end - offset) as usize)];
        read_exact_at(from, part, offset)?;
        to.write_all(part)?;
        offset += part.len() as u64;
    }
    Ok(())
}

pub(super) fn read_exact_at(file: &File, mut part: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !part.is_empty() {
        let count = match sys::read_at(file, part, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        part = &mut part[count..];
        offset += count as u64;
    }
    Ok(())
}

fn read_index(live: &Path) -> Vec<IndexEntry> {
    let bytes = read_bounded(&index_path(live), INDEX_LIMIT).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter_map(IndexEntry::parse).collect()
}

fn waiting_path(live: &Path, number: u32) -> PathBuf {
    with_suffix(live, &format!(".rotating.{number}"))
}

/// Makes room among the rotated files and gives the waiting pieces their names.
pub(super) fn publish(live: &Path, pieces: u32, bounds: Bounds) {
    if pieces == 0 {
        return;
    }
    for number in (1..=bounds.rotation).rev() {
        let from = rotated_path(live, number);
        if number + pieces > bounds.rotation {
            remove_with_index(&from);
        } else {
            rename_with_index(&from, &rotated_path(live, number + pieces));
        }
    }
    for number in 1..=pieces {
        // The last piece is the youngest.
        rename_with_index(&waiting_path(live, number), &rotated_path(live, pieces + 1 - number));
    }
}

/// After a shim was killed in the middle of a rotation: copies whose original was cut already are kept, others
/// are removed. Files beyond a rotation that was lowered since go too.
pub(super) fn recover(live: &Path, live_size: u64, bounds: Bounds) {
    let waiting =
        (1..=bounds.rotation).take_while(|&number| waiting_path(live, number).exists()).count() as u32;
    let copied = (1..=waiting).filter_map(|number| fs::metadata(waiting_path(live, number)).ok());
    if copied.map(|data| data.len()).sum::<u64>() > live_size {
        publish(live, waiting, bounds);
    }
    remove_waiting(live);
    let mut beyond = bounds.rotation + 1;
    while rotated_path(live, beyond).exists() && remove_with_index(&rotated_path(live, beyond)) {
        beyond += 1;
    }
}

fn remove_waiting(live: &Path) {
    let mut number = 1;
    while waiting_path(live, number).exists() && remove_with_index(&waiting_path(live, number)) {
        number += 1;
    }
}

/// Removes rotated files that nobody wrote to for so long.
pub(super) fn remove_older(live: &Path, age: Duration, bounds: Bounds) {
    for number in 1..=bounds.rotation {
        let path = rotated_path(live, number);
        let written = fs::metadata(&path).and_then(|data| data.modified()).ok();
        if written.and_then(|time| time.elapsed().ok()).is_some_and(|elapsed| elapsed > age) {
            remove_with_index(&path);
        }
    }
}

fn rename_with_index(from: &Path, to: &Path) {
    let _ = fs::rename(from, to);
    if fs::rename(index_path(from), index_path(to)).is_err() {
        let _ = fs::remove_file(index_path(to));
    }
}

fn remove_with_index(path: &Path) -> bool {
    let _ = fs::remove_file(index_path(path));
    fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
    }

    impl Scene {
        fn new(content: &str) -> Self {
            let scene = Self { folder: tempfile::tempdir().unwrap() };
            fs::write(scene.live(), content).unwrap();
            scene
        }

        fn live(&self) -> PathBuf {
            self.folder.path().join("x.log")
        }

        fn rotate(&self, bounds: Bounds) {
            let file = File::options().read(true).write(true).open(self.live()).unwrap();
            let size = file.metadata().unwrap().len();
            let copied = copy(&self.live(), &file, size, bounds);
            file.set_len(0).unwrap();
            publish(&self.live(), copied.pieces(), bounds);
        }

        fn rotated(&self, number: u32) -> Option<String> {
            fs::read_to_string(rotated_path(&self.live(), number)).ok()
        }
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.fold(String::new(), |text, number| text + &format!("line {number:06} of the log\n"))
    }

    #[test]
    fn an_ordinary_rotation_makes_one_file_and_shifts_the_others() {
        let bounds = Bounds { max_bytes: 10_000, rotation: 2 };
        let scene = Scene::new(&lines(0..300));
        for begin in [0, 300, 600] {
            fs::write(scene.live(), lines(begin..begin + 300)).unwrap();
            scene.rotate(bounds);
        }
        assert_eq!(scene.rotated(1).unwrap(), lines(600..900));
        assert_eq!(scene.rotated(2).unwrap(), lines(300..600));
        assert_eq!(scene.rotated(3), None);
    }

    #[test]
    fn a_burst_is_split_into_whole_lines_and_the_newest_are_kept() {
        let bounds = Bounds { max_bytes: 10_000, rotation: 3 };
        let scene = Scene::new(&lines(0..5000));
        scene.rotate(bounds);
        let joined: String = (1..=3).rev().map(|number| scene.rotated(number).unwrap()).collect();
        let first: u32 = joined[5..11].parse().unwrap();
        assert_eq!(joined, lines(first..5000), "no line is torn, missing in between or repeated");
        for number in 1..=3 {
            let piece = scene.rotated(number).unwrap();
            assert!(piece.len() <= 10_000 && piece.ends_with('\n'));
        }
        assert!(joined.len() > 25_000, "the room is used: {}", joined.len());
    }

    #[test]
    fn half_a_line_at_the_end_is_not_copied() {
        let scene = Scene::new("whole\nhal");
        scene.rotate(Bounds { max_bytes: 10_000, rotation: 1 });
        assert_eq!(scene.rotated(1).unwrap(), "whole\n");
    }

    #[test]
    fn blanks_that_stood_for_half_a_line_are_not_copied() {
        let scene = Scene::new("    \nwhole\n");
        scene.rotate(Bounds { max_bytes: 10_000, rotation: 1 });
        assert_eq!(scene.rotated(1).unwrap(), "whole\n");
    }

    #[test]
    fn a_piece_has_its_own_index() {
        let scene = Scene::new("aaaa\nbbbb\n");
        fs::write(index_path(&scene.live()), "5 100\n10 200\n").unwrap();
        scene.rotate(Bounds { max_bytes: 10_000, rotation: 1 });
        let index = fs::read_to_string(index_path(&rotated_path(&scene.live(), 1))).unwrap();
        assert_eq!(index, "5 100\n10 200\n");
    }

    #[test]
    fn without_rotation_nothing_is_kept() {
        let scene = Scene::new(&lines(0..10));
        scene.rotate(Bounds { max_bytes: 100, rotation: 0 });
        assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_rotation_that_was_interrupted_is_finished_or_undone() {
        let bounds = Bounds { max_bytes: 10_000, rotation: 2 };
        let scene = Scene::new("");
        fs::write(waiting_path(&scene.live(), 1), "copied\n").unwrap();
        recover(&scene.live(), 0, bounds);
        assert_eq!(scene.rotated(1).unwrap(), "copied\n");

        fs::write(scene.live(), "copied\nmore\n").unwrap();
        fs::write(waiting_path(&scene.live(), 1), "copied\n").unwrap();
        recover(&scene.live(), 12, bounds);
        assert!(!waiting_path(&scene.live(), 1).exists());
        assert_eq!(scene.rotated(2), None);
    }

    #[test]
    fn rotated_files_go_when_they_are_too_old() {
        let scene = Scene::new("");
        let day = Duration::from_hours(24);
        for (number, days) in [(1, 1), (2, 8)] {
            let file = File::create(rotated_path(&scene.live(), number)).unwrap();
            let written = file.metadata().unwrap().modified().unwrap() - day * days;
            file.set_modified(written).unwrap();
        }
        remove_older(&scene.live(), day * 7, Bounds { max_bytes: 100, rotation: 3 });
        assert!(scene.rotated(1).is_some());
        assert!(scene.rotated(2).is_none());
    }

    #[test]
    fn a_lowered_rotation_removes_what_is_beyond_it() {
        let scene = Scene::new("");
        for number in 1..=4 {
            fs::write(rotated_path(&scene.live(), number), "x\n").unwrap();
        }
        recover(&scene.live(), 0, Bounds { max_bytes: 100, rotation: 2 });
        assert_eq!(
            (1..=4).map(|number| scene.rotated(number).is_some()).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }
}
