//! Putting an engine together where nobody looks, and publishing it in one step.
//!
//! A staging folder is `engines/.staging-<id>`; the engine grows in its `tree`. Publishing renames the tree to
//! `engines/<id>` and only then names it in the registry, both under the registry's lock. Whatever a kill leaves
//! is unnamed, and swept by the next installation.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orch_core::{Failure, HomeLayout};
use uuid::Uuid;

use crate::lock::{self, Lock};
use crate::registry::{self, Record};
use crate::{faults, tree};

const PREFIX: &str = ".staging-";
const LOCK: &str = "lock";
/// Lies in a published folder until the registry names it.
const UNNAMED: &str = ".unnamed";

/// The folder of one installation. Deleted when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) id: Uuid,
    engines: PathBuf,
    folder: PathBuf,
    /// Tells other installers that this folder is in use, for as long as this process lives.
    _lock: Lock,
}

impl Staging {
    /// A fresh folder; sweeps what killed installations left.
    pub(crate) fn create(home: &HomeLayout) -> Result<Self, Failure> {
        let engines = std::path::absolute(home.engines()).unwrap_or_else(|_| home.engines());
        tree::create_private(&engines).map_err(|error| faults::install("create", &engines, &error))?;
        let _registry = lock::acquire(&engines.join("registry.lock"))?;
        sweep(&engines);
        let id = Uuid::new_v4();
        let folder = engines.join(format!("{PREFIX}{id}"));
        tree::create_private(&folder.join("tree"))
            .map_err(|error| faults::install("create", &folder, &error))?;
        let lock = lock::acquire(&folder.join(LOCK))?;
        Ok(Self { id, engines, folder, _lock: lock })
    }

    /// Where the engine grows.
    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Where a download or another by-product lies until the end.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the engine visible. `executable` lies in the tree; the record gets its final place.
    pub(crate) fn publish(
        self,
        home: &HomeLayout,
        executable: &Path,
        mut record: Record,
        make_default: bool,
    ) -> Result<Record, Failure> {
        let tree = self.tree();
        let inside =
            executable.strip_prefix(&tree).map_err(|_| faults::invalid("the engine lies outside"))?;
        record.id = self.id;
        record.executable = Path::new(&self.id.to_string()).join(inside);
        let place = self.engines.join(self.id.to_string());
        let io = |error: io::Error| faults::install("create", &place, &error);
        fs::write(tree.join(UNNAMED), "").map_err(io)?;
        // Before the lock: a large engine takes its time.
        tree::sync(&tree).map_err(io)?;
        registry::edit(home, |registry| {
            tree::publish(&tree, &place).and_then(|()| tree::sync_folder(&self.engines)).map_err(io)?;
            registry.put(&record, make_default)
        })?;
        // Left behind by a kill it would be found in a folder that is named, which no sweep touches.
        let _ = fs::remove_file(place.join(UNNAMED));
        Ok(record)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        discard(&self.folder);
    }
}

/// Deletes an engine's folder that the registry names no longer. What a kill leaves of it is swept.
pub(crate) fn discard_engine(engines: &Path, id: Uuid) {
    let doomed = engines.join(format!("{PREFIX}{id}"));
    // An engine that was registered in place has no folder here.
    if fs::rename(engines.join(id.to_string()), &doomed).is_ok() {
        discard(&doomed);
    }
}

/// Deletes a folder as far as possible; the next sweep tries again.
fn discard(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

/// Deletes staging folders whose installer is dead, and published ones that never got their name. The caller
/// holds the registry's lock, so nobody is between publishing and naming.
fn sweep(engines: &Path) {
    let Ok(entries) = fs::read_dir(engines) else { return };
    let home = HomeLayout::new(engines.parent().unwrap_or(engines));
    // Without knowing what is named, nothing is known to be unnamed.
    let named = registry::Registry::load(&home).ok().map(|registry| registry.list());
    let is_unnamed = |name: &str| {
        named.as_ref().is_some_and(|engines| !engines.iter().any(|engine| engine.id.to_string() == name))
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dead_staging = name.starts_with(PREFIX) && lock::try_acquire(&path.join(LOCK)).is_some();
        let unnamed = path.join(UNNAMED).exists() && is_unnamed(&name);
        if dead_staging || unnamed {
            discard(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orch_core::ByteCount;

    fn temp_home() -> (tempfile::TempDir, HomeLayout) {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeLayout::new(folder.path());
        (folder, home)
    }

    fn record() -> Record {
        Record {
            id: Uuid::nil(),
            version: "b1".to_owned(),
            variant: "ubuntu-x64".to_owned(),
            executable: PathBuf::new(),
            source: "github".to_owned(),
            sha256: None,
            installed_at: "2026-01-01T00:00:00Z".to_owned(),
            size_bytes: ByteCount(1),
        }
    }

    /// A staging folder with an engine in it.
    fn filled(home: &HomeLayout) -> (Staging, PathBuf) {
        let staging = Staging::create(home).unwrap();
        let executable = staging.tree().join("bin").join(crate::EXECUTABLE_NAME);
        fs::create_dir_all(executable.parent().unwrap()).unwrap();
        fs::write(&executable, "engine").unwrap();
        (staging, executable)
    }

    fn folders(home: &HomeLayout) -> Vec<String> {
        let entries = fs::read_dir(home.engines()).unwrap().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_published_engine_is_named_and_its_staging_folder_is_gone() {
        let (_folder, home) = temp_home();
        let (staging, executable) = filled(&home);
        let id = staging.id;
        staging.publish(&home, &executable, record(), true).unwrap();
        let engine = registry::Registry::load(&home).unwrap().default().unwrap();
        assert_eq!(engine.id, id);
        assert_eq!(fs::read_to_string(&engine.executable).unwrap(), "engine");
        assert_eq!(folders(&home), [id.to_string()]);
        assert!(!home.engines().join(id.to_string()).join(UNNAMED).exists());
    }

    #[test]
    fn an_installation_that_failed_leaves_nothing() {
        let (_folder, home) = temp_home();
        drop(filled(&home));
        assert!(folders(&home).is_empty());
    }

    #[test]
    fn what_a_killed_installer_left_is_swept_and_a_living_ones_folder_is_not() {
        let (_folder, home) = temp_home();
        let (living, _) = filled(&home);
        let dead = home.engines().join(format!("{PREFIX}dead"));
        fs::create_dir_all(dead.join("tree")).unwrap();
        let (next, _) = filled(&home);
        let mut expected = [living.folder.clone(), next.folder.clone()];
        expected.sort();
        let mut found: Vec<_> = folders(&home).iter().map(|name| home.engines().join(name)).collect();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_engine_killed_between_publishing_and_naming_is_swept_and_a_named_one_stays() {
        let (_folder, home) = temp_home();
        let (staging, executable) = filled(&home);
        let named = staging.publish(&home, &executable, record(), false).unwrap().id.to_string();
        // As if the kill had come right after the naming, before the mark was removed.
        fs::write(home.engines().join(&named).join(UNNAMED), "").unwrap();
        let unnamed = home.engines().join(Uuid::new_v4().to_string());
        fs::create_dir(&unnamed).unwrap();
        fs::write(unnamed.join(UNNAMED), "").unwrap();
        let foreign = home.engines().join("mine");
        fs::create_dir(&foreign).unwrap();
        drop(Staging::create(&home).unwrap());
        let mut found = folders(&home);
        found.sort();
        let mut expected = vec![named, "mine".to_owned()];
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_damaged_registry_stops_the_sweep_of_published_folders() {
        let (_folder, home) = temp_home();
        let unnamed = home.engines().join(Uuid::new_v4().to_string());
        fs::create_dir_all(&unnamed).unwrap();
        fs::write(unnamed.join(UNNAMED), "").unwrap();
        fs::write(home.engine_registry(), "{").unwrap();
        drop(Staging::create(&home).unwrap());
        assert!(unnamed.exists());
    }
}
