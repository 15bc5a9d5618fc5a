//! The index beside a log file: `<size> <unix ms>` for each time the file was seen to have grown. A byte at
//! offset `o` was written shortly before the first entry whose size is above `o`.

use std::io::{self, Write};
use std::path::Path;

use orch_core::UnixMillis;

use super::reverse::ReverseLines;

/// One look at a grown file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub size: u64,
    pub at: UnixMillis,
}

impl IndexEntry {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (size, at) = line.trim().split_once(' ')?;
        Some(Self { size: size.parse().ok()?, at: UnixMillis(at.parse().ok()?) })
    }

    pub(crate) fn write(self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{} {}", self.size, self.at.0)
    }
}

/// Looks up ever smaller offsets, reading the index from its end and no further than needed.
pub(crate) struct IndexCursor {
    lines: Option<ReverseLines>,
    /// The smallest entry known to be above the last offset asked for.
    above: Option<IndexEntry>,
    /// The entry before it.
    next: Option<IndexEntry>,
}

impl IndexCursor {
    pub(crate) fn open(path: &Path) -> Self {
        let mut cursor = Self { lines: ReverseLines::open(path).ok(), above: None, next: None };
        cursor.next = cursor.read();
        cursor
    }

    /// When the byte at this offset was written; `None` when no entry tells. Offsets must not grow from call
    /// to call.
    pub(crate) fn time_of(&mut self, offset: u64) -> Option<UnixMillis> {
        while let Some(entry) = self.next.filter(|entry| entry.size > offset) {
            self.above = Some(entry);
            self.next = self.read();
        }
        self.above.map(|entry| entry.at)
    }

    /// The entry before, skipping lines that are none (a disk that was full can tear them).
    fn read(&mut self) -> Option<IndexEntry> {
        let lines = self.lines.as_mut()?;
        loop {
            let (_, line) = lines.next_line().ok()??;
            if let Some(entry) = IndexEntry::parse(&String::from_utf8_lossy(&line)) {
                return Some(entry);
            }
        }
    }
}

/// The part of an index that belongs to the bytes `from..to`, as an index of those bytes alone.
pub(crate) fn section(entries: &[IndexEntry], from: u64, to: u64) -> Vec<IndexEntry> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.size > from) {
        found.push(IndexEntry { size: entry.size.min(to) - from, at: entry.at });
        if entry.size >= to {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: u64, at: i64) -> IndexEntry {
        IndexEntry { size, at: UnixMillis(at) }
    }

    #[test]
    fn a_byte_has_the_time_of_the_first_look_that_saw_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.index");
        std::fs::write(&path, "10 100\n20 200\nrubbish\n30 300\n").unwrap();
        let mut cursor = IndexCursor::open(&path);
        let times: Vec<_> = [30, 29, 20, 19, 10, 9, 0].map(|offset| cursor.time_of(offset)).into();
        let expected = [None, Some(300), Some(300), Some(200), Some(200), Some(100), Some(100)];
        assert_eq!(times, expected.map(|at| at.map(UnixMillis)));
    }

    #[test]
    fn without_an_index_no_time_is_known() {
        assert_eq!(IndexCursor::open(Path::new("/nowhere/x.index")).time_of(0), None);
    }

    #[test]
    fn a_section_counts_from_its_own_beginning() {
        let entries = [entry(10, 1), entry(20, 2), entry(30, 3)];
        assert_eq!(section(&entries, 0, 10), [entry(10, 1)]);
        assert_eq!(section(&entries, 5, 25), [entry(5, 1), entry(15, 2), entry(20, 3)]);
        assert_eq!(section(&entries, 20, 30), [entry(10, 3)]);
    }
}
