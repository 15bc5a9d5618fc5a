//! Names that are one name on some systems: `README.md` and `readme.md` must not both appear.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::path::OutputPath;

/// Beyond so many names new ones are no longer compared with those found on the disk.
const MOST: usize = 200_000;
/// Paths of at most 1,000 bytes are not deeper.
const DEEPEST: usize = 500;

/// The paths below a folder by what remains of them without the difference of capital and small letters. Read
/// from the disk once, then kept up with what is written here.
#[derive(Default)]
pub(crate) struct Names {
    by_folded: Mutex<Option<HashMap<String, String>>>,
}

impl Names {
    /// The existing path, or folder on the way, that differs from this one only in letter case.
    pub(crate) fn collision(&self, root: &Path, path: &OutputPath) -> Option<String> {
        let mut names = self.by_folded.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_with(|| on_disk(root));
        let other = path
            .prefixes()
            .find_map(|prefix| names.get(&prefix.to_lowercase()).filter(|there| *there != prefix).cloned())?;
        // A program of the run may have removed it since. Where case does not matter, it is there by either name.
        std::fs::symlink_metadata(root.join(&other)).is_ok().then_some(other)
    }

    /// Takes note of a path that exists now.
    pub(crate) fn add(&self, path: &OutputPath) {
        let mut names = self.by_folded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = names.as_mut() {
            names.extend(path.prefixes().map(|prefix| (prefix.to_lowercase(), prefix.to_owned())));
        }
    }
}

fn on_disk(root: &Path) -> HashMap<String, String> {
    let mut names = HashMap::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            if names.len() >= MOST {
                return names;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && depth < DEEPEST {
                folders.push((path.clone(), depth + 1));
            }
            names.insert(path.to_lowercase(), path);
        }
    }
    names
}
