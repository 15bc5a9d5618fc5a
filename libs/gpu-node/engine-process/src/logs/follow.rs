//! New lines as they come, across rotations and restarts.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use orch_core::UnixMillis;

use super::position::{LogPosition, Place};
use super::tail::{Ending, tail_until};
use super::{
    LINE_LIMIT, LogFiles, LogLine, Stream, StreamSelection, is_blanked_out, line_text, rotated_path,
};

/// Read from one stream in one poll; the rest comes with the next.
const POLL_LIMIT: u64 = 1024 * 1024;
const ROTATED_LIMIT: u32 = 1000;

/// Reads what is appended to log files. It waits for nothing itself: the caller sets the pace.
#[derive(Debug)]
pub struct Follower {
    streams: Vec<FollowedFile>,
}

/// The last lines, as [`super::tail`], and a follower that goes on exactly behind them. A line still being
/// written is left to the follower.
pub fn tail_then_follow(
    files: &LogFiles,
    selection: StreamSelection,
    n: usize,
    since: Option<UnixMillis>,
) -> io::Result<(Vec<LogLine>, Follower)> {
    let newest: Vec<_> = files.chosen(selection).iter().map(|(_, path)| Stamp::of_youngest(path)).collect();
    let (lines, ends) = tail_until(files, selection, n, since, Ending::WholeLines)?;
    let streams = ends.into_iter().zip(newest).map(|(end, youngest)| FollowedFile {
        stream: end.stream,
        path: end.path,
        offset: end.offset,
        youngest,
        shrunk: false,
    });
    Ok((lines, Follower { streams: streams.collect() }))
}

impl Follower {
    /// Follows from the present end.
    pub fn new(files: &LogFiles, selection: StreamSelection) -> io::Result<Self> {
        Ok(tail_then_follow(files, selection, 0, None)?.1)
    }

    /// Goes on where another follower of the same files stood: see [`Follower::position`].
    pub fn resume(files: &LogFiles, selection: StreamSelection, position: &LogPosition) -> io::Result<Self> {
        let mut follower = Self::new(files, selection)?;
        for stream in &mut follower.streams {
            if let Some(known) = position.0.iter().find(|known| known.stream == stream.stream) {
                (stream.offset, stream.youngest) = (known.offset, known.youngest);
            }
        }
        Ok(follower)
    }

    /// Where it stands: behind the last line that it gave.
    pub fn position(&self) -> LogPosition {
        let place = |stream: &FollowedFile| Place {
            stream: stream.stream,
            offset: stream.offset,
            youngest: stream.youngest,
        };
        LogPosition(self.streams.iter().map(place).collect())
    }

    /// The whole lines that came since the last call; very many of them come in several calls.
    pub fn poll(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for stream in &mut self.streams {
            stream.poll(&mut lines)?;
        }
        Ok(lines)
    }
}

/// Tells one rotated file from the next: a rename keeps both values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) modified: SystemTime,
    pub(super) size: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self { modified: metadata.modified().ok()?, size: metadata.len() })
    }

    fn of_youngest(live: &Path) -> Option<Self> {
        Self::of(&rotated_path(live, 1))
    }
}

#[derive(Debug)]
struct FollowedFile {
    stream: Stream,
    path: PathBuf,
    offset: u64,
    youngest: Option<Stamp>,
    /// The file was seen shorter than what was read of it, but no rotated file explains it yet.
    shrunk: bool,
}

impl FollowedFile {
    fn poll(&mut self, lines: &mut Vec<LogLine>) -> io::Result<()> {
        let youngest = Stamp::of_youngest(&self.path);
        let size = self.path.metadata().map_or(0, |metadata| metadata.len());
        if youngest != self.youngest && youngest.is_some() {
            let (read, all) = self.read_rotated(lines)?;
            self.offset += read;
            if !all {
                return Ok(());
            }
            self.youngest = youngest;
            self.restart();
        } else if size < self.offset {
            // The shim cuts first and renames a moment later.
            if !std::mem::replace(&mut self.shrunk, true) {
                return Ok(());
            }
            self.restart();
        }
        let path = self.path.clone();
        self.offset += self.read(&path, self.offset, POLL_LIMIT, lines)?;
        Ok(())
    }

    fn restart(&mut self) {
        self.offset = 0;
        self.shrunk = false;
    }

    /// The rest of what stood in the live file when it was rotated. The rotated files younger than the one
    /// known before hold, oldest first, just what the live file held from its beginning. Returns how many bytes
    /// were read, and whether that was all.
    fn read_rotated(&self, lines: &mut Vec<LogLine>) -> io::Result<(u64, bool)> {
        let stamps = (1..ROTATED_LIMIT).map_while(|number| Stamp::of(&rotated_path(&self.path, number)));
        let younger: Vec<Stamp> = stamps.take_while(|stamp| Some(*stamp) != self.youngest).collect();
        let (mut skip, mut consumed) = (self.offset, 0);
        for (position, stamp) in younger.iter().enumerate().rev() {
            let number = position as u32 + 1;
            if skip >= stamp.size {
                skip -= stamp.size;
                continue;
            }
            if consumed >= POLL_LIMIT {
                return Ok((consumed, false));
            }
            let left = stamp.size - skip;
            let read = self.read(&rotated_path(&self.path, number), skip, POLL_LIMIT, lines)?;
            if left > POLL_LIMIT && read > 0 {
                return Ok((consumed + read, false));
            }
            consumed += left;
            skip = 0;
        }
        Ok((consumed, true))
    }

    /// Reads whole lines from an offset and returns how many bytes they are.
    fn read(&self, path: &Path, offset: u64, limit: u64, lines: &mut Vec<LogLine>) -> io::Result<u64> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        let whole = match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(position) => position + 1,
            None if bytes.len() >= LINE_LIMIT => bytes.len(),
            None => 0,
        };
        let at = Some(UnixMillis::now());
        for (number, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
            if offset == 0 && number == 0 && is_blanked_out(line) {
                continue;
            }
            for piece in line.chunks(LINE_LIMIT) {
                lines.push(LogLine { stream: self.stream, at, text: line_text(piece) });
            }
        }
        Ok(whole as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Log {
        folder: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn files(&self) -> LogFiles {
            LogFiles {
                stdout: self.folder.path().join("stdout.log"),
                stderr: self.folder.path().join("stderr.log"),
            }
        }

        fn append(&self, text: &str) {
            let path = self.files().stderr;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// As the shim does it, with two files kept.
        fn rotate(&self) {
            let live = self.files().stderr;
            let content = std::fs::read(&live).unwrap();
            std::fs::write(&live, "").unwrap();
            let _ = std::fs::rename(rotated_path(&live, 1), rotated_path(&live, 2));
            std::fs::write(rotated_path(&live, 1), content).unwrap();
        }
    }

    fn texts(follower: &mut Follower) -> Vec<String> {
        follower.poll().unwrap().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn following_begins_behind_the_tail_and_gives_each_line_once() {
        let log = Log::new();
        log.append("1\n2\n3");
        let (lines, mut follower) = tail_then_follow(&log.files(), StreamSelection::Both, 10, None).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(texts(&mut follower).is_empty());
        log.append("3\n4\n");
        assert_eq!(texts(&mut follower), ["33", "4"]);
        assert!(texts(&mut follower).is_empty());
    }

    #[test]
    fn lines_written_just_before_a_rotation_are_not_missed() {
        let log = Log::new();
        log.append("1\n");
        let mut follower = Follower::new(&log.files(), StreamSelection::Stderr).unwrap();
        log.append("2\n");
        log.rotate();
        log.append("3\n");
        assert_eq!(texts(&mut follower), ["2", "3"]);
        log.append("4\n");
        log.rotate();
        log.append("5\n");
        log.rotate();
        log.append("a much longer line than all before it\n");
        assert_eq!(texts(&mut follower), ["4", "5", "a much longer line than all before it"]);
    }

    #[test]
    fn another_follower_goes_on_where_one_stood_across_a_rotation() {
        let log = Log::new();
        log.append("1\n2\n");
        let mut follower = Follower::new(&log.files(), StreamSelection::Both).unwrap();
        log.append("3\n");
        assert_eq!(texts(&mut follower), ["3"]);
        let position = follower.position().to_string();
        log.append("4\n");
        log.rotate();
        log.append("5\n");
        let position: LogPosition = position.parse().unwrap();
        let mut resumed = Follower::resume(&log.files(), StreamSelection::Both, &position).unwrap();
        assert_eq!(texts(&mut resumed), ["4", "5"]);
        assert_eq!(texts(&mut resumed), Vec::<String>::new());
    }

    #[test]
    fn much_that_was_rotated_away_comes_in_pieces_and_without_a_gap() {
        let log = Log::new();
        log.append("begin\n");
        let mut follower = Follower::new(&log.files(), StreamSelection::Stderr).unwrap();
        let limit = usize::try_from(POLL_LIMIT).unwrap();
        let count = limit / 64 * 3;
        let lines: Vec<String> = (0..count).map(|number| format!("{number:063}")).collect();
        log.append(&(lines.join("\n") + "\n"));
        log.rotate();
        log.append("end\n");
        let (mut seen, mut largest) = (Vec::new(), 0);
        for _ in 0..10 {
            let lines = texts(&mut follower);
            largest = largest.max(lines.len());
            seen.extend(lines);
        }
        assert_eq!(seen.len(), count + 1);
        assert!(largest * 64 <= 2 * limit, "{largest} lines at once");
        assert_eq!((seen[0].as_str(), seen[count].as_str()), (format!("{:063}", 0).as_str(), "end"));
    }

    #[test]
    fn a_file_emptied_by_hand_is_followed_from_its_new_beginning() {
        let log = Log::new();
        log.append("1\n2\n3\n");
        let mut follower = Follower::new(&log.files(), StreamSelection::Stderr).unwrap();
        std::fs::write(log.files().stderr, "9\n").unwrap();
        assert!(texts(&mut follower).is_empty());
        assert_eq!(texts(&mut follower), ["9"]);
    }

    #[test]
    fn a_file_that_does_not_exist_yet_can_be_followed() {
        let log = Log::new();
        let mut follower = Follower::new(&log.files(), StreamSelection::Both).unwrap();
        assert!(texts(&mut follower).is_empty());
        log.append("first\n");
        assert_eq!(texts(&mut follower), ["first"]);
    }
}
