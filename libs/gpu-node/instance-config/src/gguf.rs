//! The figures of a model that stand in the head of its GGUF file: enough to say what context it was trained for and
//! how much memory it takes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// The architecture's figures stand before the tokenizer's long lists; what is not found in this much is not sought
/// further.
const FARTHEST: u64 = 1024 * 1024;
const LONGEST_KEY: u64 = 4096;

/// What a model's file tells of its shape; absent where it does not, or not early enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelShape {
    /// Tokens it was trained for.
    pub(crate) context: Option<u64>,
    /// Layers (blocks).
    pub(crate) layers: Option<u64>,
    /// Width of the hidden state.
    pub(crate) embedding: Option<u64>,
    /// Attention heads; the largest number where layers differ.
    pub(crate) heads: Option<u64>,
    /// Heads whose keys and values are kept, over all layers together where layers differ.
    pub(crate) kept_heads: Option<KeptHeads>,
    /// Elements of one head's key, and of its value.
    pub(crate) key_length: Option<u64>,
    pub(crate) value_length: Option<u64>,
    /// Tokens that it knows.
    pub(crate) vocabulary: Option<u64>,
}

/// Key and value heads, told once for all layers or for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptHeads {
    EachLayer(u64),
    /// The sum over all layers.
    Together(u64),
}

impl ModelShape {
    /// Reads the head of a file; one that cannot be read, or is no GGUF, tells nothing.
    pub(crate) fn read(path: &Path) -> Self {
        let mut shape = Self::default();
        if let Ok(file) = File::open(path) {
            // What was read before the end of what may be read is as good as all of it.
            let _ = shape.fill(&mut BufReader::new(file).take(FARTHEST));
        }
        shape
    }

    fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        let mut magic = [0; 4];
        reader.read_exact(&mut magic)?;
        let version = u32::from_le_bytes(bytes(reader)?);
        if &magic != b"GGUF" || !(2..=3).contains(&version) {
            return Ok(());
        }
        let _tensors: [u8; 8] = bytes(reader)?;
        let entries = u64::from_le_bytes(bytes(reader)?);
        for _ in 0..entries {
            let key = text(reader)?;
            let kind = u32::from_le_bytes(bytes(reader)?);
            let key = String::from_utf8_lossy(&key);
            self.entry(&key, kind, reader)?;
        }
        Ok(())
    }

    fn entry(&mut self, key: &str, kind: u32, reader: &mut impl Read) -> io::Result<()> {
        let name = key.split_once('.').map_or(key, |(_, name)| name);
        let figure = match name {
            "context_length" => &mut self.context,
            "block_count" => &mut self.layers,
            "embedding_length" => &mut self.embedding,
            "attention.key_length" => &mut self.key_length,
            "attention.value_length" => &mut self.value_length,
            "attention.head_count" => {
                self.heads = figures(reader, kind)?.map(|told| told.largest);
                return Ok(());
            }
            "attention.head_count_kv" => {
                self.kept_heads = figures(reader, kind)?.map(|told| {
                    if told.listed {
                        KeptHeads::Together(told.sum)
                    } else {
                        KeptHeads::EachLayer(told.largest)
                    }
                });
                return Ok(());
            }
            _ if key == "tokenizer.ggml.tokens" && kind == LIST => {
                let kind = u32::from_le_bytes(bytes(reader)?);
                let count = u64::from_le_bytes(bytes(reader)?);
                self.vocabulary = Some(count);
                return skip_list(reader, kind, count);
            }
            _ => return skip(reader, kind),
        };
        *figure = figures(reader, kind)?.map(|told| told.largest);
        Ok(())
    }
}

/// One number, or a list of them.
struct Figures {
    largest: u64,
    sum: u64,
    listed: bool,
}

/// Consumes a value; `None` when it is no whole number, nor a list of such.
fn figures(reader: &mut impl Read, kind: u32) -> io::Result<Option<Figures>> {
    if kind != LIST {
        let one = whole_number(reader, kind)?;
        return Ok(one.map(|one| Figures { largest: one, sum: one, listed: false }));
    }
    let kind = u32::from_le_bytes(bytes(reader)?);
    let count = u64::from_le_bytes(bytes(reader)?);
    let mut told = Figures { largest: 0, sum: 0, listed: true };
    if !matches!(kind, 4 | 5 | 10 | 11) {
        skip_list(reader, kind, count)?;
        return Ok(None);
    }
    for _ in 0..count {
        let one = whole_number(reader, kind)?.unwrap_or_default();
        told.largest = told.largest.max(one);
        told.sum = told.sum.saturating_add(one);
    }
    Ok(Some(told))
}

/// Consumes a value of any type; `None` when it is no whole number.
fn whole_number(reader: &mut impl Read, kind: u32) -> io::Result<Option<u64>> {
    Ok(match kind {
        4 | 5 => Some(u64::from(u32::from_le_bytes(bytes(reader)?))),
        10 | 11 => Some(u64::from_le_bytes(bytes(reader)?)),
        _ => {
            skip(reader, kind)?;
            None
        }
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
            skip_list(reader, kind, count)
        }
        _ => discard(reader, width(kind).ok_or(io::ErrorKind::InvalidData)?),
    }
}

fn skip_list(reader: &mut impl Read, kind: u32, count: u64) -> io::Result<()> {
    match width(kind) {
        Some(width) => discard(reader, count.saturating_mul(width)),
        // Every text takes at least its length's eight bytes, so the reader's bound ends this loop.
        None if kind == TEXT => (0..count).try_for_each(|_| skip_text(reader)),
        None => Err(io::ErrorKind::InvalidData.into()),
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

    fn shape_of(bytes: &[u8]) -> ModelShape {
        let mut shape = ModelShape::default();
        let _ = shape.fill(&mut &bytes[..]);
        shape
    }

    #[test]
    fn heads_that_differ_by_layer_are_summed_and_what_was_read_before_a_broken_end_counts() {
        let list =
            [&5u32.to_le_bytes()[..], &3u64.to_le_bytes(), &[8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]].concat();
        let bytes = file(&[
            entry("gemma3n.attention.head_count", 4, &8u32.to_le_bytes()),
            entry("gemma3n.attention.head_count_kv", LIST, &list),
            entry("gemma3n.block_count", 4, &3u32.to_le_bytes()),
            entry("tokenizer.ggml.tokens", LIST, &[&TEXT.to_le_bytes()[..], &9u64.to_le_bytes()].concat()),
        ]);
        let shape = shape_of(&bytes);
        assert_eq!(shape.heads, Some(8));
        assert_eq!(shape.kept_heads, Some(KeptHeads::Together(10)));
        assert_eq!((shape.layers, shape.vocabulary), (Some(3), Some(9)));
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
        assert_eq!(shape_of(&bytes).context, Some(2048));
    }

    #[test]
    fn a_file_without_the_figure_tells_nothing() {
        assert_eq!(shape_of(&file(&[])), ModelShape::default());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_always_end(tail in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = [b"GGUF\x03\0\0\0", &tail[..]].concat();
            shape_of(&bytes);
        }
    }
}
