//! The one fact that a config is checked against in the head of a GGUF file: the context the model was trained for.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The architecture's figures stand before the tokenizer's long lists; what is not found in this much is not sought
/// further.
const FARTHEST: u64 = 1024 * 1024;
const LONGEST_KEY: u64 = 4096;

/// The context length a model was trained for, if its file says so early enough.
pub(crate) fn trained_context(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    read_trained_context(&mut BufReader::new(file).take(FARTHEST)).ok().flatten()
}

fn read_trained_context(reader: &mut impl Read) -> io::Result<Option<u64>> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic)?;
    let version = u32::from_le_bytes(bytes(reader)?);
    if &magic != b"GGUF" || !(2..=3).contains(&version) {
        return Ok(None);
    }
    let _tensors: [u8; 8] = bytes(reader)?;
    let entries = u64::from_le_bytes(bytes(reader)?);
    for _ in 0..entries {
        let key = text(reader)?;
        let kind = u32::from_le_bytes(bytes(reader)?);
        if key.ends_with(b".context_length") {
            return whole_number(reader, kind);
        }
        skip(reader, kind)?;
    }
    Ok(None)
}

fn whole_number(reader: &mut impl Read, kind: u32) -> io::Result<Option<u64>> {
    Ok(match kind {
        4 | 5 => Some(u64::from(u32::from_le_bytes(bytes(reader)?))),
        10 | 11 => Some(u64::from_le_bytes(bytes(reader)?)),
        _ => None,
    })
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

fn skip(reader: &mut impl Read, kind: u32) -> io::Result<()> {
    match kind {
        TEXT => skip_text(reader),
        LIST => {
            let kind = u32::from_le_bytes(bytes(reader)?);
            let count = u64::from_le_bytes(bytes(reader)?);
            match width(kind) {
                Some(width) => discard(reader, count.saturating_mul(width)),
                // Every text takes at least its length's eight bytes, so the reader's bound ends this loop.
                None if kind == TEXT => (0..count).try_for_each(|_| skip_text(reader)),
                None => Err(io::ErrorKind::InvalidData.into()),
            }
        }
        _ => discard(reader, width(kind).ok_or(io::ErrorKind::InvalidData)?),
    }
}

/// Bytes of one value of a fixed-size type.
const fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn skip_text(reader: &mut impl Read) -> io::Result<()> {
    let length = u64::from_le_bytes(bytes(reader)?);
    discard(reader, length)
}

fn text(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = u64::from_le_bytes(bytes(reader)?);
    if length > LONGEST_KEY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
    reader.read_exact(&mut text)?;
    Ok(text)
}

fn discard(reader: &mut impl Read, length: u64) -> io::Result<()> {
    let passed = io::copy(&mut reader.take(length), &mut io::sink())?;
    if passed < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn bytes<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        let mut entry = (key.len() as u64).to_le_bytes().to_vec();
        entry.extend(key.as_bytes());
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
        entry
    }

    fn file(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend((entries.len() as u64).to_le_bytes());
        file.extend(entries.concat());
        file
    }

    fn text_value(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn the_context_is_found_behind_values_of_other_types() {
        let list =
            [&TEXT.to_le_bytes()[..], &2u64.to_le_bytes(), &text_value("a"), &text_value("bc")].concat();
        let numbers = [&4u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 8]].concat();
        let bytes = file(&[
            entry("general.architecture", TEXT, &text_value("llama")),
            entry("general.tags", LIST, &list),
            entry("general.numbers", LIST, &numbers),
            entry("general.flag", 7, &[1]),
            entry("llama.context_length", 4, &2048u32.to_le_bytes()),
        ]);
        assert_eq!(read_trained_context(&mut &bytes[..]).unwrap(), Some(2048));
    }

    #[test]
    fn a_file_without_the_figure_tells_nothing() {
        assert_eq!(read_trained_context(&mut &file(&[])[..]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_always_end(tail in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = [b"GGUF\x03\0\0\0", &tail[..]].concat();
            let _ = read_trained_context(&mut &bytes[..]);
        }
    }
}
