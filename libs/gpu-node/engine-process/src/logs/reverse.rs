//! The lines of a file from its end, so that the tail of a huge file costs as much as that of a small one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::LINE_LIMIT;

const BLOCK: u64 = 32 * 1024;

/// Yields lines last to first, each with its offset. The size is that of the moment of opening.
pub(crate) struct ReverseLines {
    file: File,
    /// Bytes from here on are in `buffer` or were yielded.
    buffer_start: u64,
    buffer: Vec<u8>,
}

impl ReverseLines {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, buffer_start: size, buffer: Vec::new() })
    }

    /// Leaves out what stands behind the last line end: a line still being written. Returns the offset at which
    /// it begins.
    pub(crate) fn skip_unfinished(&mut self) -> io::Result<u64> {
        while self.buffer_start > 0 && !self.buffer.contains(&b'\n') && self.buffer.len() < LINE_LIMIT {
            self.fill()?;
        }
        let end = self.buffer.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1);
        if end > 0 || self.buffer_start == 0 {
            self.buffer.truncate(end);
        }
        Ok(self.buffer_start + self.buffer.len() as u64)
    }

    /// The line before the last one yielded, with its line end if it has one. Lines over the limit come in
    /// pieces.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            if let Some(start) = self.line_start() {
                let line = self.buffer.split_off(start);
                return Ok(Some((self.buffer_start + start as u64, line)));
            }
            if self.buffer_start == 0 || self.buffer.len() >= LINE_LIMIT {
                let line = std::mem::take(&mut self.buffer);
                return Ok((!line.is_empty()).then_some((self.buffer_start, line)));
            }
            self.fill()?;
        }
    }

    /// Where the last line of the buffer begins, if its beginning is in the buffer for sure.
    fn line_start(&self) -> Option<usize> {
        let (_, before) = self.buffer.split_last()?;
        before.iter().rposition(|&byte| byte == b'\n').map(|position| position + 1)
    }

    fn fill(&mut self) -> io::Result<()> {
        let count = BLOCK.min(self.buffer_start);
        let start = self.buffer_start - count;
        self.file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::with_capacity(count as usize + self.buffer.len());
        self.file.by_ref().take(count).read_to_end(&mut block)?;
        // The file was cut meanwhile: what stood here is in a rotated file now.
        if (block.len() as u64) < count {
            block.clear();
            self.buffer.clear();
            self.buffer_start = 0;
            return Ok(());
        }
        block.append(&mut self.buffer);
        self.buffer = block;
        self.buffer_start = start;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(content: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, content).unwrap();
        let mut reverse = ReverseLines::open(&path).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reverse.next_line().unwrap() {
            lines.push(line);
        }
        lines.reverse();
        lines
    }

    #[test]
    fn lines_come_whole_with_their_offsets() {
        assert_eq!(lines_of(b""), []);
        assert_eq!(lines_of(b"a\n\nbc"), [(0, b"a\n".to_vec()), (2, b"\n".to_vec()), (3, b"bc".to_vec())]);
    }

    #[test]
    fn reading_backwards_agrees_with_reading_forwards_over_many_blocks() {
        let content: String =
            (0..20_000).fold(String::new(), |text, number| text + "line " + &"x".repeat(number % 97) + "\n");
        let joined: Vec<u8> = lines_of(content.as_bytes()).into_iter().flat_map(|(_, line)| line).collect();
        assert_eq!(joined, content.as_bytes());
        assert_eq!(lines_of(content.as_bytes()).len(), 20_000);
    }

    #[test]
    fn a_file_without_line_ends_comes_in_bounded_pieces() {
        let pieces = lines_of(&vec![b'x'; 300 * 1024]);
        assert!(pieces.iter().all(|(_, piece)| piece.len() <= LINE_LIMIT + BLOCK as usize));
        assert_eq!(pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>(), 300 * 1024);
    }

    #[test]
    fn an_unfinished_line_can_be_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        for (content, expected) in [("a\nbc", 2), ("a\n", 2), ("abc", 0), ("", 0)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(
                ReverseLines::open(&path).unwrap().skip_unfinished().unwrap(),
                expected,
                "{content:?}"
            );
        }
    }
}
