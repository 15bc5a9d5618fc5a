//! Reading a journal from its beginning, and finding where its whole part ends.
//!
//! A process that is killed leaves a prefix of what it wrote: at most the last line is torn. After a power loss
//! the end may hold zeros or rubbish. So from the first line that is not whole on, nothing whole may follow: then
//! the rest is a torn end and can be cut off. Where something whole follows, the journal was damaged afterwards,
//! and nobody can say what is missing: that is refused. So is a line that is complete but for a checksum that fits:
//! neither a kill nor a power loss makes one, an editor does.

use std::io::{self, BufRead};

use super::fact::Fact;
use super::line::{BEGINNING, LINE_LIMIT, is_whole};

/// So many beginnings are tried within one damaged piece: more than one stands there only where newlines are gone.
const MOST_BEGINNINGS: usize = 64;

/// Where the whole part of a journal ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WholePart {
    pub(crate) bytes: u64,
    /// Of the last whole line; 0 where there is none.
    pub(crate) seq: u64,
    /// The last line is whole, but its newline is missing.
    pub(crate) lacks_newline: bool,
    /// Bytes after the whole part.
    pub(crate) torn: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("line {line} of the journal is damaged")]
    Damaged { line: u64 },
    #[error("the journal cannot be read")]
    Io(#[from] io::Error),
}

/// Hears every whole line with its meaning, in order.
pub(crate) fn scan(
    mut reader: impl BufRead,
    mut hear: impl FnMut(&[u8], &Fact<'_>),
) -> Result<WholePart, ScanError> {
    let mut part = WholePart::default();
    let mut piece = Vec::new();
    let mut line = 0;
    loop {
        piece.clear();
        line += 1;
        let length = read_piece(&mut reader, &mut piece)?;
        if length == 0 {
            return Ok(part);
        }
        let Some((content, has_newline)) = whole_line(&piece) else {
            let rest = length + no_line_in_rest(&mut reader, &mut piece, line)?;
            return Ok(WholePart { torn: rest, ..part });
        };
        let fact = Fact::read(content).filter(|fact| fact.seq == part.seq + 1);
        let fact = fact.ok_or(ScanError::Damaged { line })?;
        hear(content, &fact);
        part.seq = fact.seq;
        part.bytes += content.len() as u64 + u64::from(has_newline);
        if !has_newline {
            return Ok(WholePart { lacks_newline: true, torn: length - content.len() as u64, ..part });
        }
    }
}

/// Reads up to and with the next newline; returns how many bytes that were. Of an endless piece only as much is
/// kept as a line may have.
fn read_piece(reader: &mut impl BufRead, piece: &mut Vec<u8>) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let newline = memchr::memchr(b'\n', available);
        let used = newline.map_or(available.len(), |at| at + 1);
        let room = (LINE_LIMIT + 1).saturating_sub(piece.len());
        piece.extend_from_slice(&available[..used.min(room)]);
        reader.consume(used);
        length += used as u64;
        if newline.is_some() || used == 0 {
            return Ok(length);
        }
    }
}

/// The line in a piece and whether its newline is there, if it is whole. The zeros that a power loss may leave
/// behind the last line are no part of it.
fn whole_line(piece: &[u8]) -> Option<(&[u8], bool)> {
    if let Some(content) = piece.strip_suffix(b"\n") {
        return is_whole(content).then_some((content, true));
    }
    let content = without_zeros(piece);
    is_whole(content).then_some((content, false))
}

fn without_zeros(piece: &[u8]) -> &[u8] {
    let end = piece.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    &piece[..end]
}

/// Reads the rest of the journal and returns its length, if no whole line is in it. `piece`, line number `line`,
/// is the first that is not whole.
fn no_line_in_rest(reader: &mut impl BufRead, piece: &mut Vec<u8>, line: u64) -> Result<u64, ScanError> {
    let mut rest = 0;
    loop {
        if holds_whole_line(piece) || was_edited(piece) {
            return Err(ScanError::Damaged { line });
        }
        piece.clear();
        match read_piece(reader, piece)? {
            0 => return Ok(rest),
            length => rest += length,
        }
    }
}

/// Whether a piece is a line of a journal from its beginning to its newline, though not as it was written.
fn was_edited(piece: &[u8]) -> bool {
    piece.starts_with(BEGINNING)
        && piece.ends_with(b"\n")
        && serde_json::from_slice::<serde::de::IgnoredAny>(piece).is_ok()
}

/// Whether a whole line stands anywhere in a piece that is not one: it does where a newline was damaged.
fn holds_whole_line(piece: &[u8]) -> bool {
    let content = without_zeros(piece.strip_suffix(b"\n").unwrap_or(piece));
    let beginnings = memchr::memmem::rfind_iter(content, BEGINNING).take(MOST_BEGINNINGS);
    beginnings.into_iter().any(|at| is_whole(&content[at..]))
}
