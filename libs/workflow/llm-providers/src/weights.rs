//! Which weights answer: a digest of a model's files that is quick to make however large they are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Read whole from the beginning: it names the model, its shape and its words.
const HEAD: u64 = 1024 * 1024;
/// Read whole at the end.
const TAIL: u64 = 64 * 1024;
/// Between the two, so many blocks at even distances.
const SAMPLES: u64 = 64;
const BLOCK: u64 = 4096;

/// A digest of these files: of their sizes, and of samples of what is in them. Weights that were trained further differ
/// everywhere; a copy elsewhere is the same.
pub(crate) fn digest(files: &[PathBuf]) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for file in files {
        add(&mut hasher, file)?;
    }
    Ok(format!("sampled:{}", hex::encode(hasher.finalize())))
}

fn add(hasher: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hasher.update(length.to_le_bytes());
    add_part(hasher, &mut file, 0, HEAD)?;
    let rest = length.saturating_sub(HEAD);
    if rest > TAIL + SAMPLES * BLOCK {
        let distance = (rest - TAIL) / SAMPLES;
        for sample in 0..SAMPLES {
            add_part(hasher, &mut file, HEAD + sample * distance, BLOCK)?;
        }
        return add_part(hasher, &mut file, length - TAIL, TAIL);
    }
    add_part(hasher, &mut file, HEAD, rest)
}

fn add_part(hasher: &mut Sha256, file: &mut File, from: u64, length: u64) -> io::Result<()> {
    let mut part = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length).read_to_end(&mut part)?;
    hasher.update(&part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Large enough that most of it is only sampled.
    fn model(change_at: Option<usize>) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![7; 4 * 1024 * 1024];
        if let Some(at) = change_at {
            bytes[at..].fill(8);
        }
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        (folder, vec![path])
    }

    #[test]
    fn a_copy_has_the_same_digest_and_other_weights_have_another() {
        let (_one, one) = model(None);
        let (_copy, copy) = model(None);
        assert_eq!(digest(&one).unwrap(), digest(&copy).unwrap());
        for change in [0, 1_000_000, 1_100_000, 2_000_000, 4_194_000] {
            let (_other, other) = model(Some(change));
            assert_ne!(digest(&one).unwrap(), digest(&other).unwrap(), "changed from byte {change} on");
        }
    }

    #[test]
    fn the_length_counts_and_small_files_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (short, long) = (folder.path().join("short"), folder.path().join("long"));
        std::fs::write(&short, vec![0; 10]).unwrap();
        std::fs::write(&long, vec![0; 11]).unwrap();
        assert_ne!(digest(std::slice::from_ref(&short)).unwrap(), digest(&[long]).unwrap());
        assert!(digest(&[short, folder.path().join("missing")]).is_err());
    }
}
