//! Databases that are not ours to write: refused with exit code 34 and left as they are.

use std::fs;

use orch_core::{ExitCode, Failure, HomeLayout};
use rusqlite::Connection;
use state_store::{StateReader, StateStore, StoreError};

use crate::older::write_database;
use crate::{store_with_chat, temp_home};

/// Both handles refuse with 34, and the file keeps its bytes.
fn assert_refused(home: &HomeLayout, before: &[u8]) -> StoreError {
    let writing = StateStore::open(home).unwrap_err();
    let reading = StateReader::open(home).unwrap_err();
    for error in [&writing, &reading] {
        assert_eq!(error.exit_code(), ExitCode::StateUnusable, "{error}");
    }
    assert!(fs::read(home.database()).unwrap() == before, "the file was changed");
    writing
}

#[test]
fn a_newer_database_is_refused_and_the_message_names_both_versions() {
    let (_folder, home) = temp_home();
    let sql = "CREATE TABLE schema_info (version INTEGER); INSERT INTO schema_info VALUES (101);";
    let before = write_database(&home, sql);
    let failure = Failure::from(assert_refused(&home, &before));
    assert!(failure.message.contains("version 101") && failure.message.contains("100"), "{failure}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let (_folder, home) = temp_home();
    fs::create_dir_all(home.state()).unwrap();
    let garbage = b"this is not a database, it only looks at you ".repeat(100);
    fs::write(home.database(), &garbage).unwrap();
    assert!(matches!(assert_refused(&home, &garbage), StoreError::Corrupt { .. }));
}

#[test]
fn a_truncated_database_is_refused() {
    let (_folder, home) = temp_home();
    drop(store_with_chat(&home));
    let whole = fs::read(home.database()).unwrap();
    let half = &whole[..whole.len() / 2];
    fs::write(home.database(), half).unwrap();
    assert_refused(&home, half);
}

#[test]
fn a_writer_refuses_a_database_with_a_damaged_page() {
    let (_folder, home) = temp_home();
    drop(store_with_chat(&home));
    let mut bytes = fs::read(home.database()).unwrap();
    // Past the first page, which holds the schema: only a look at the pages finds it.
    bytes[4096..].chunks_mut(4096).for_each(|page| page[..64].fill(0xA5));
    fs::write(home.database(), &bytes).unwrap();
    let error = StateStore::open(&home).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::StateUnusable, "{error}");
    assert!(fs::read(home.database()).unwrap() == bytes, "the file was changed");
}

#[test]
fn a_word_that_no_version_of_ours_writes_counts_as_damage() {
    let (_folder, home) = temp_home();
    drop(store_with_chat(&home));
    write_database(&home, "UPDATE instances SET desired_state = 'sleeping'");
    let error = StateReader::open(&home).unwrap().unwrap().instances().unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::StateUnusable);
    assert!(error.to_string().contains("sleeping"), "{error}");
}

#[test]
fn an_empty_file_is_no_database_yet() {
    let (_folder, home) = temp_home();
    fs::create_dir_all(home.state()).unwrap();
    fs::write(home.database(), b"").unwrap();
    assert!(StateReader::open(&home).unwrap().is_none());
    drop(store_with_chat(&home));
    assert_eq!(StateReader::open(&home).unwrap().unwrap().instances().unwrap().len(), 1);
}

/// What a kill leaves while an empty file becomes a database: pages half written, and a journal to undo them.
#[test]
fn a_creation_that_was_interrupted_is_no_database_yet_and_the_next_writer_mends_it() {
    let (folder, home) = temp_home();
    let source = folder.path().join("source.sqlite");
    let connection = Connection::open(&source).unwrap();
    // A cache this small writes into the file before the commit.
    connection.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE half (written)").unwrap();
    connection.execute("INSERT INTO half VALUES (zeroblob(200000))", []).unwrap();
    fs::create_dir_all(home.state()).unwrap();
    fs::copy(&source, home.database()).unwrap();
    fs::copy(folder.path().join("source.sqlite-journal"), home.state().join("state.sqlite-journal")).unwrap();
    let before = fs::read(home.database()).unwrap();
    assert!(!before.is_empty());

    assert!(StateReader::open(&home).unwrap().is_none());
    assert!(fs::read(home.database()).unwrap() == before, "the file was changed");
    drop(store_with_chat(&home));
    assert_eq!(StateReader::open(&home).unwrap().unwrap().instances().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn folder_and_file_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, home) = temp_home();
    let store = store_with_chat(&home);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.state()), 0o700);
    let wal = home.state().join("state.sqlite-wal");
    assert_eq!((mode(&home.database()), mode(&wal)), (0o600, 0o600));
    drop(store);
}
