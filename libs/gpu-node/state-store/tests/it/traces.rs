//! Reading leaves no trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use orch_core::HomeLayout;
use state_store::{EventQuery, StateReader};

use crate::{FIRST, name, spawn, store_with_chat, temp_home};

/// Every file of a folder with its bytes, SQLite's side files left out; folders have none.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                open.push(path.clone());
                found.insert(path, None);
            } else if !text.ends_with("-wal") && !text.ends_with("-shm") {
                found.insert(path.clone(), Some(fs::read(path).unwrap()));
            }
        }
    }
    found
}

fn read_everything(home: &HomeLayout) {
    let reader = StateReader::open(home).unwrap().unwrap();
    assert_eq!(reader.instances().unwrap().len(), 1);
    assert_eq!(reader.runtimes().unwrap().len(), 1);
    assert_eq!(reader.runtime(&name("chat"), FIRST).unwrap().unwrap().pid, Some(4711));
    reader.health_history(&name("chat"), 10).unwrap();
    reader.events(&EventQuery::default()).unwrap();
}

#[test]
fn a_home_without_a_database_stays_without_one() {
    let (folder, home) = temp_home();
    assert!(StateReader::open(&home).unwrap().is_none());
    fs::create_dir_all(home.root()).unwrap();
    assert!(StateReader::open(&home).unwrap().is_none());
    assert_eq!(snapshot(folder.path()).len(), 1, "only the folder that the test made");
}

#[test]
fn reading_beside_a_living_writer_changes_no_byte() {
    let (folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, crate::NOW);
    let before = snapshot(folder.path());
    read_everything(&home);
    assert!(snapshot(folder.path()) == before);
    drop(store);
}

#[test]
fn reading_after_the_writer_left_changes_no_byte() {
    let (folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, crate::NOW);
    drop(store);
    let before = snapshot(folder.path());
    read_everything(&home);
    read_everything(&home);
    assert!(snapshot(folder.path()) == before);
}

#[test]
fn reading_what_a_killed_writer_left_in_its_log_changes_no_byte() {
    let (folder, home) = temp_home();
    let store = store_with_chat(&home);
    spawn(&store, true, crate::NOW);
    // A copy of the files of a living writer is what kill -9 leaves: rows that are only in the log.
    let killed = HomeLayout::new(folder.path().join("killed"));
    fs::create_dir_all(killed.state()).unwrap();
    for file in ["state.sqlite", "state.sqlite-wal"] {
        fs::copy(home.state().join(file), killed.state().join(file)).unwrap();
    }
    drop(store);
    let before = snapshot(killed.root());
    read_everything(&killed);
    read_everything(&killed);
    assert!(snapshot(killed.root()) == before);
}
