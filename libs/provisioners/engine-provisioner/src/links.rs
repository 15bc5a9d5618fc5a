//! Library version links that a package could not carry.
//!
//! The package builds of llama.cpp list them in `_symlinks.json` beside the server (name → target), because the
//! package format has no links. Without them the server does not find its libraries.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};

use orch_core::Failure;

use crate::faults;

const LIST: &str = "_symlinks.json";
const LIST_LIMIT: u64 = 256 * 1024;
/// A chain of links is short; where files are copied instead, each round resolves one more of it.
const ROUNDS: usize = 8;

/// Makes the listed links in `folder`. Those that exist stay; a folder without a list is left alone.
pub(crate) fn make(folder: &Path) -> Result<(), Failure> {
    let path = folder.join(LIST);
    let Some(list) = read_list(&path)? else { return Ok(()) };
    for (name, target) in &list {
        if !is_plain_name(name) || !is_plain_name(target) {
            return Err(faults::invalid(format!(
                "{} leads out of its folder: {name} → {target}",
                path.display()
            )));
        }
    }
    for _ in 0..ROUNDS {
        for (name, target) in &list {
            let link = folder.join(name);
            if link.symlink_metadata().is_err() && folder.join(target).symlink_metadata().is_ok() {
                link_or_copy(target, &link).map_err(|error| faults::install("create", &link, &error))?;
            }
        }
    }
    Ok(())
}

fn read_list(path: &Path) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(faults::install("read", path, &error)),
    };
    let mut text = String::new();
    file.take(LIST_LIMIT).read_to_string(&mut text).map_err(|error| faults::install("read", path, &error))?;
    let list = serde_json::from_str(&text)
        .map_err(|error| faults::invalid(format!("{} is not a list of links: {error}", path.display())))?;
    Ok(Some(list))
}

fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\'])
}

/// A link to a file in the same folder.
#[cfg(unix)]
pub(crate) fn link_or_copy(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on this system; a copy works for everybody.
#[cfg(not(unix))]
pub(crate) fn link_or_copy(target: &str, link: &Path) -> io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new(""));
    fs::copy(folder.join(target), link).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(list: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lib.so.1.2"), "library").unwrap();
        fs::write(folder.path().join(LIST), list).unwrap();
        folder
    }

    #[test]
    fn chains_of_links_are_made_once_and_again_without_harm() {
        let folder = folder(r#"{"lib.so": "lib.so.1", "lib.so.1": "lib.so.1.2", "lost.so": "nowhere.so"}"#);
        make(folder.path()).unwrap();
        make(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("lib.so")).unwrap(), "library");
        assert!(folder.path().join("lost.so").symlink_metadata().is_err());
    }

    #[test]
    fn a_list_that_leads_out_of_its_folder_is_refused() {
        for list in [r#"{"lib.so": "../../etc/passwd"}"#, r#"{"../evil": "lib.so.1.2"}"#, r#"{"a": "/x"}"#] {
            let folder = folder(list);
            assert_eq!(make(folder.path()).unwrap_err().exit.number(), 51, "{list}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_folder_without_a_list_is_left_alone() {
        make(tempfile::tempdir().unwrap().path()).unwrap();
    }
}
