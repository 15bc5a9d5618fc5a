//! The database of a control plane, through its public face.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use control_store::{ControlError, ControlReader, ControlStore, NewKey, SCHEMA_VERSION};
use orch_core::{ExitCode, Priority, Scope, UnixMillis};
use tempfile::TempDir;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/control.sqlite");
    (folder, path)
}

fn key(name: &str) -> NewKey {
    let mut digest = [7; 32];
    digest[..name.len().min(32)].copy_from_slice(&name.as_bytes()[..name.len().min(32)]);
    NewKey {
        id: format!("key-{name}"),
        name: name.to_owned(),
        digest,
        scopes: vec![Scope::Infer],
        models: None,
        rpm: None,
        tpm: None,
        concurrency: None,
        budget: None,
        priority: None,
    }
}

/// Runs SQL that no method of ours would run.
fn tamper(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_key_comes_back_as_it_was_kept() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let full = NewKey {
        scopes: vec![Scope::Infer, Scope::Read, Scope::Admin, Scope::Node],
        models: Some(vec!["chat".to_owned(), "with,comma".to_owned()]),
        rpm: Some(60),
        tpm: Some(10_000),
        concurrency: Some(2),
        budget: Some(1_000_000),
        priority: Some(Priority::Batch),
        ..key("full")
    };
    let none = NewKey { models: Some(Vec::new()), ..key("no-model") };
    store.add_key(&full, NOW).unwrap();
    store.add_key(&none, UnixMillis(NOW.0 + 1)).unwrap();
    store.add_spent(&[("key-full".to_owned(), 12, NOW), ("gone".to_owned(), 5, NOW)]).unwrap();
    store.add_spent(&[("key-full".to_owned(), 30, UnixMillis(NOW.0 + 9))]).unwrap();

    let rows = ControlReader::open(&path).unwrap().unwrap().keys().unwrap();
    assert_eq!(rows.iter().map(|row| &row.key).collect::<Vec<_>>(), [&full, &none]);
    assert_eq!((rows[0].created_at, rows[0].spent), (NOW, 42));
    assert_eq!(rows[0].last_used_at, Some(UnixMillis(NOW.0 + 9)));
    assert_eq!((rows[1].spent, rows[1].last_used_at), (0, None));
}

#[test]
fn a_name_belongs_to_one_key_and_goes_with_it() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    store.add_key(&key("laptop"), NOW).unwrap();
    let again = NewKey { id: "key-other".to_owned(), digest: [1; 32], ..key("laptop") };
    let refused = store.add_key(&again, NOW).unwrap_err();
    assert_eq!(refused.exit_code(), ExitCode::AlreadyExists, "{refused}");

    assert_eq!(store.remove_key("laptop").unwrap().key.id, "key-laptop");
    let refused = store.remove_key("laptop").unwrap_err();
    assert!(matches!(refused, ControlError::UnknownKey { .. }), "{refused}");
    store.add_key(&again, NOW).unwrap();
    assert_eq!(store.remove_key("key-other").unwrap().key.name, "laptop");
}

#[test]
fn reading_creates_nothing() {
    let (folder, path) = place();
    assert!(ControlReader::open(&path).unwrap().is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    store.add_key(&key("one"), NOW).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_extension("sqlite-wal")), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn what_is_newer_foreign_or_damaged_is_refused_and_left_alone() {
    let newer = |path: &Path| tamper(path, &format!("PRAGMA user_version = {}", SCHEMA_VERSION + 1));
    let foreign = |path: &Path| tamper(path, "PRAGMA application_id = 1");
    let damaged = |path: &Path| fs::write(path, "this is no database at all, only text").unwrap();
    for spoil in [&newer as &dyn Fn(&Path), &foreign, &damaged] {
        let (_folder, path) = place();
        drop(ControlStore::open(&path).unwrap());
        spoil(&path);
        let before = fs::read(&path).unwrap();
        let refused = ControlStore::open(&path).unwrap_err();
        assert_eq!(refused.exit_code(), ExitCode::StateUnusable, "{refused}");
        assert_eq!(ControlReader::open(&path).unwrap_err().exit_code(), ExitCode::StateUnusable);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn an_unreadable_word_is_damage_and_not_a_missing_right() {
    let (_folder, path) = place();
    ControlStore::open(&path).unwrap().add_key(&key("one"), NOW).unwrap();
    tamper(&path, "UPDATE keys SET scopes = 'everything'");
    let refused = ControlReader::open(&path).unwrap().unwrap().keys().unwrap_err();
    assert!(refused.to_string().contains("\"everything\" is no word"), "{refused}");
    assert_eq!(refused.exit_code(), ExitCode::StateUnusable);
}

#[test]
fn a_file_whose_creation_was_interrupted_is_made_anew() {
    let (_folder, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    assert!(ControlReader::open(&path).unwrap().is_none());
    ControlStore::open(&path).unwrap().add_key(&key("one"), NOW).unwrap();
    assert_eq!(ControlReader::open(&path).unwrap().unwrap().keys().unwrap().len(), 1);
}

#[test]
fn somebody_elses_change_shows_in_the_number_of_changes() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    let before = store.changes().unwrap();
    assert_eq!(store.changes().unwrap(), before);
    ControlStore::open(&path).unwrap().add_key(&key("one"), NOW).unwrap();
    assert_ne!(store.changes().unwrap(), before);
}

#[test]
fn many_processes_may_create_it_at_once() {
    let (_folder, path) = place();
    let names: Vec<String> = (0..8).map(|number| format!("key{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| ControlStore::open(&path).unwrap().add_key(&key(name), NOW).unwrap());
        }
    });
    assert_eq!(ControlStore::open(&path).unwrap().keys().unwrap().len(), names.len());
}

#[test]
fn a_cordon_stays_until_it_is_lifted_and_both_may_be_repeated() {
    let (_folder, path) = place();
    let store = ControlStore::open(&path).unwrap();
    assert!(!store.is_cordoned("here").unwrap());
    store.uncordon("here").unwrap();
    for _ in 0..2 {
        store.cordon("here", NOW).unwrap();
        let again = ControlReader::open(&path).unwrap().unwrap();
        assert!(again.is_cordoned("here").unwrap() && !again.is_cordoned("there").unwrap());
    }
    store.uncordon("here").unwrap();
    assert!(!store.is_cordoned("here").unwrap());
}
