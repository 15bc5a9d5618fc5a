//! The last lines of an engine's logs, both streams interleaved by time.

use std::io;
use std::path::{Path, PathBuf};

use orch_core::UnixMillis;

use super::index::IndexCursor;
use super::reverse::ReverseLines;
use super::{
    LogFiles, LogLine, Stream, StreamSelection, index_path, is_blanked_out, line_text, rotated_path,
};

/// More rotated files than any configuration keeps.
const ROTATED_LIMIT: u32 = 1000;

/// The last `n` lines, oldest first, and only those since a moment where one is given. Rotated files are read
/// when the live ones do not hold enough. Missing files are empty.
pub fn tail(
    files: &LogFiles,
    selection: StreamSelection,
    n: usize,
    since: Option<UnixMillis>,
) -> io::Result<Vec<LogLine>> {
    Ok(tail_until(files, selection, n, since, Ending::Everything)?.0)
}

/// Whether a last line without its line end is taken or left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Everything,
    WholeLines,
}

/// Up to where a live file was read.
pub(super) struct StreamEnd {
    pub stream: Stream,
    pub path: PathBuf,
    pub offset: u64,
}

/// As [`tail`], with the offset in each live file up to which it was read.
pub(super) fn tail_until(
    files: &LogFiles,
    selection: StreamSelection,
    n: usize,
    since: Option<UnixMillis>,
    ending: Ending,
) -> io::Result<(Vec<LogLine>, Vec<StreamEnd>)> {
    let mut ends = Vec::new();
    let mut streams = Vec::new();
    for (stream, path) in files.chosen(selection) {
        let mut backwards = Backwards::open(stream, path, ending)?;
        ends.push(StreamEnd { stream, path: path.to_owned(), offset: backwards.end });
        streams.push(backwards.take(n, since)?);
    }
    let mut lines = merge(streams);
    lines.drain(..lines.len().saturating_sub(n));
    Ok((lines, ends))
}

/// One stream read from its end through its rotated files.
struct Backwards {
    stream: Stream,
    path: PathBuf,
    current: Option<(ReverseLines, IndexCursor)>,
    rotated: u32,
    end: u64,
}

impl Backwards {
    fn open(stream: Stream, path: &Path, ending: Ending) -> io::Result<Self> {
        let mut current = open_pair(path)?;
        let end = match (&mut current, ending) {
            (Some((lines, _)), Ending::WholeLines) => lines.skip_unfinished()?,
            _ => 0,
        };
        Ok(Self { stream, path: path.to_owned(), current, rotated: 0, end })
    }

    /// At most `n` lines since the moment, oldest first.
    fn take(&mut self, n: usize, since: Option<UnixMillis>) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        while lines.len() < n {
            let Some(line) = self.next()? else { break };
            // A line without a known time is taken: better too much than a hole.
            if line.at.zip(since).is_some_and(|(at, since)| at < since) {
                break;
            }
            lines.push(line);
        }
        lines.reverse();
        Ok(lines)
    }

    fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if let Some((lines, index)) = &mut self.current
                && let Some((offset, bytes)) = lines.next_line()?
            {
                if offset > 0 || !is_blanked_out(&bytes) {
                    let at = index.time_of(offset);
                    return Ok(Some(LogLine { stream: self.stream, at, text: line_text(&bytes) }));
                }
            } else if !self.step_to_older()? {
                return Ok(None);
            }
        }
    }

    fn step_to_older(&mut self) -> io::Result<bool> {
        self.rotated += 1;
        if self.rotated > ROTATED_LIMIT {
            return Ok(false);
        }
        self.current = open_pair(&rotated_path(&self.path, self.rotated))?;
        Ok(self.current.is_some())
    }
}

fn open_pair(path: &Path) -> io::Result<Option<(ReverseLines, IndexCursor)>> {
    match ReverseLines::open(path) {
        Ok(lines) => Ok(Some((lines, IndexCursor::open(&index_path(path))))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Interleaves streams by time. Within a stream the order never changes; lines without a time go with the line
/// before them, and at the end of a stream they are the newest of all.
pub(super) fn merge(streams: Vec<Vec<LogLine>>) -> Vec<LogLine> {
    let mut keyed: Vec<(UnixMillis, LogLine)> = Vec::new();
    for lines in streams {
        let mut next = UnixMillis(i64::MAX);
        let mut of_stream = Vec::with_capacity(lines.len());
        for line in lines.into_iter().rev() {
            // Times are those of a later look, so walking backwards they can only fall.
            next = line.at.map_or(next, |at| at.min(next));
            of_stream.push((next, line));
        }
        of_stream.reverse();
        keyed.extend(of_stream);
    }
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> LogFiles {
        LogFiles { stdout: folder.join("stdout.log"), stderr: folder.join("stderr.log") }
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn streams_are_interleaved_by_the_time_they_were_seen() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        std::fs::write(&files.stdout, "o1\no2\n").unwrap();
        std::fs::write(folder.path().join("stdout.log.index"), "3 100\n6 300\n").unwrap();
        std::fs::write(&files.stderr, "e1\ne2\n").unwrap();
        std::fs::write(folder.path().join("stderr.log.index"), "3 200\n6 400\n").unwrap();
        let lines = tail(&files, StreamSelection::Both, 10, None).unwrap();
        assert_eq!(texts(&lines), ["o1", "e1", "o2", "e2"]);
        let lines = tail(&files, StreamSelection::Both, 10, Some(UnixMillis(250))).unwrap();
        assert_eq!(texts(&lines), ["o2", "e2"]);
        let lines = tail(&files, StreamSelection::Stderr, 1, None).unwrap();
        assert_eq!(lines, [LogLine { stream: Stream::Stderr, at: Some(UnixMillis(400)), text: "e2".into() }]);
    }

    #[test]
    fn rotated_files_are_read_when_the_live_one_is_too_short() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        std::fs::write(&files.stderr, "5\n6").unwrap();
        std::fs::write(folder.path().join("stderr.log.1"), "3\n4\n").unwrap();
        std::fs::write(folder.path().join("stderr.log.2"), "1\n2\n").unwrap();
        let lines = tail(&files, StreamSelection::Both, 5, None).unwrap();
        assert_eq!(texts(&lines), ["2", "3", "4", "5", "6"]);
    }

    #[test]
    fn missing_files_and_no_lines_wanted_are_empty() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        assert!(tail(&files, StreamSelection::Both, 5, None).unwrap().is_empty());
        std::fs::write(&files.stderr, "1\n").unwrap();
        assert!(tail(&files, StreamSelection::Both, 0, None).unwrap().is_empty());
    }

    /// Bytes that this thread has asked the system for.
    #[cfg(target_os = "linux")]
    fn bytes_read() -> u64 {
        let counters = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        counters.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_tail_of_a_huge_file_is_read_without_reading_the_file() {
        use std::io::{Seek, SeekFrom, Write};
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let mut file = std::fs::File::create(&files.stderr).unwrap();
        // A hole: two gigabytes of size without the bytes.
        let begin = file.seek(SeekFrom::Start(2_000_000_000)).unwrap();
        let mut index = std::fs::File::create(folder.path().join("stderr.log.index")).unwrap();
        index.write_all(&b"1 1\n".repeat(1_000_000)).unwrap();
        for number in 0..1000_u64 {
            file.write_all(format!("\nline {number:04}").as_bytes()).unwrap();
            writeln!(index, "{} {}", begin + 10 * (number + 1), 1000 + number).unwrap();
        }
        let before = bytes_read();
        let lines = tail(&files, StreamSelection::Both, 100, None).unwrap();
        assert_eq!((lines.len(), lines[99].text.as_str()), (100, "line 0999"));
        assert!(lines[99].at.is_some());
        let since = tail(&files, StreamSelection::Both, 10_000, Some(UnixMillis(1900))).unwrap();
        assert!((99..=101).contains(&since.len()), "{}", since.len());
        // A block or two of each file, and what looking at the counter itself takes.
        let read = bytes_read() - before;
        assert!(read < 512 * 1024, "{read} bytes were read");
    }
}
