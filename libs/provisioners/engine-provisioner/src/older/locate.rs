//! Where an engine of the older tool lies.

use std::path::{Component, Path, PathBuf};

use orch_core::HomeLayout;

use super::entries::Entry;
use crate::{EXECUTABLE_NAME, tree};

/// What the same program is called on the other kind of system.
const ELSEWHERE: &str = if cfg!(windows) { "llama-server" } else { "llama-server.exe" };

pub(super) enum Located {
    Here(PathBuf),
    /// A file is there, and no use here.
    ForAnotherSystem(PathBuf),
    Nowhere,
}

pub(super) fn executable(entry: &Entry, home: &HomeLayout) -> Located {
    let written = entry.path.as_deref().map(|path| home.root().join(native(path)));
    for name in [EXECUTABLE_NAME, ELSEWHERE] {
        let direct = written.iter().filter(|path| path.file_name().is_some_and(|file| file == name));
        let inside = written.iter().flat_map(|folder| usual_places(folder, name));
        let found = direct.cloned().chain(inside).find(|path| path.is_file());
        // A registry that came with the home from another machine names folders of that machine.
        let found = found.or_else(|| tree::find(&entry.folder, name).ok().flatten());
        match found {
            Some(path) if name == EXECUTABLE_NAME => return Located::Here(lexical(&path)),
            Some(path) => return Located::ForAnotherSystem(path),
            None => {}
        }
    }
    Located::Nowhere
}

/// Whether a folder itself holds an engine, of whatever system.
pub(super) fn holds_engine(folder: &Path) -> bool {
    [EXECUTABLE_NAME, ELSEWHERE].iter().any(|name| folder.join(name).is_file())
}

/// Only these: what a registry names may be any folder of the machine, and that is not searched.
fn usual_places(folder: &Path, name: &str) -> [PathBuf; 3] {
    [folder.join(name), folder.join("bin").join(name), folder.join("build").join("bin").join(name)]
}

fn native(written: &str) -> PathBuf {
    if cfg!(windows) { PathBuf::from(written) } else { PathBuf::from(written.replace('\\', "/")) }
}

/// Relative to the engines folder where it lies in the home, so that the home can be moved.
pub(super) fn as_stored(executable: &Path, home: &HomeLayout) -> PathBuf {
    let root = std::path::absolute(home.root()).unwrap_or_else(|_| home.root().to_owned());
    let absolute = std::path::absolute(executable).unwrap_or_else(|_| executable.to_owned());
    match absolute.strip_prefix(root) {
        Ok(inside) => Path::new("..").join(inside),
        Err(_) => absolute,
    }
}

/// A path without `.` and `..`: what runs is compared with what was registered.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
