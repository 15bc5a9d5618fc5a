//! A database that is deleted or replaced while it is in use.

#![cfg(unix)]

use std::fs;

use orch_core::{DesiredState, EventLevel, EventType, ExitCode, HomeLayout};
use state_store::{EventQuery, NewEvent, StateReader, StateStore, StoreCondition};

use crate::processes::assert_sound;
use crate::{FIRST, NOW, know, later, name, spawn, store_with_chat, temp_home};

/// A store in use: `chat` is wanted and runs, and one event has been written.
fn store_in_use(home: &HomeLayout) -> StateStore {
    let store = store_with_chat(home);
    store.set_desired(&name("chat"), DesiredState::Running, NOW).unwrap();
    spawn(&store, true, NOW);
    append(&store, "before");
    store
}

fn append(store: &StateStore, message: &str) {
    let event = NewEvent {
        instance: None,
        level: EventLevel::Info,
        event_type: EventType::Reconciled,
        message: message.to_owned(),
        meta: None,
    };
    store.append_event(&event, later(1)).unwrap();
}

fn delete_database(home: &HomeLayout, suffixes: &[&str]) {
    for suffix in suffixes {
        fs::remove_file(home.state().join(format!("state.sqlite{suffix}"))).unwrap();
    }
}

fn messages(reader: &StateReader) -> Vec<String> {
    reader.events(&EventQuery::default()).unwrap().into_iter().map(|row| row.message).collect()
}

/// What another process finds in the file.
fn assert_chat_runs(home: &HomeLayout) {
    let reader = StateReader::open(home).unwrap().expect("the file is there again");
    assert_eq!(reader.desired(&name("chat")).unwrap(), Some(DesiredState::Running));
    assert_eq!(reader.runtime(&name("chat"), FIRST).unwrap().unwrap().pid, Some(4711));
}

fn is_mended(condition: &StoreCondition, word: &str) -> bool {
    matches!(condition, StoreCondition::Mended { what } if what.contains(word))
}

#[test]
fn a_deleted_database_is_written_again_with_everything_in_it() {
    for suffixes in [&["", "-wal", "-shm"][..], &[""]] {
        let (_folder, home) = temp_home();
        let store = store_in_use(&home);
        delete_database(&home, suffixes);
        assert!(is_mended(&store.condition(), "deleted"), "{suffixes:?}");
        assert_eq!(store.condition(), StoreCondition::Sound, "it is told once");
        append(&store, "after");
        assert_chat_runs(&home);
        let reader = StateReader::open(&home).unwrap().unwrap();
        assert_eq!(messages(&reader), ["after", "before"]);
        drop(store);
        assert_sound(&home);
        assert_chat_runs(&home);
    }
}

#[test]
fn a_write_after_the_deletion_is_in_the_new_file() {
    let (_folder, home) = temp_home();
    let store = store_in_use(&home);
    delete_database(&home, &["", "-wal", "-shm"]);
    append(&store, "after");
    assert_eq!(messages(&StateReader::open(&home).unwrap().unwrap()), ["after", "before"]);
    assert!(is_mended(&store.condition(), "deleted"));
}

#[test]
fn the_whole_state_folder_may_be_deleted() {
    let (_folder, home) = temp_home();
    let store = store_in_use(&home);
    fs::remove_dir_all(home.state()).unwrap();
    assert!(is_mended(&store.condition(), "deleted"));
    assert_chat_runs(&home);
    let files = fs::read_dir(home.state()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    assert!(files.into_iter().all(|file| !file.contains("rescue")), "the copy was left behind");
}

#[test]
fn a_fresh_database_in_its_place_gets_the_rows_that_it_does_not_know() {
    let (_folder, home) = temp_home();
    let store = store_in_use(&home);
    know(&store, "other");
    store.set_desired(&name("other"), DesiredState::Running, NOW).unwrap();
    delete_database(&home, &["", "-wal", "-shm"]);
    // Another program came before us, and its user wants `other` stopped.
    let stranger = StateStore::open(&home).unwrap();
    know(&stranger, "other");
    append(&stranger, "from elsewhere");

    assert!(is_mended(&store.condition(), "replaced"));
    assert_chat_runs(&home);
    assert_eq!(
        store.desired(&name("other")).unwrap(),
        Some(DesiredState::Stopped),
        "the younger wish stands"
    );
    assert_eq!(messages(&store), ["from elsewhere"]);
    append(&store, "after");
    assert_eq!(messages(&stranger), ["after", "from elsewhere"]);
    drop((store, stranger));
    assert_sound(&home);
}

#[test]
fn a_file_that_cannot_be_used_is_left_alone_and_work_goes_on_until_the_place_is_free() {
    let (_folder, home) = temp_home();
    let store = store_in_use(&home);
    delete_database(&home, &["", "-wal", "-shm"]);
    let garbage = b"this is not a database, it only looks at you ".repeat(100);
    fs::write(home.database(), &garbage).unwrap();

    let StoreCondition::Unusable { reason } = store.condition() else { panic!("garbage was used") };
    assert!(reason.contains("is damaged"), "{reason}");
    append(&store, "meanwhile");
    assert_eq!(messages(&store), ["meanwhile", "before"]);
    assert!(fs::read(home.database()).unwrap() == garbage, "the file was changed");
    assert_eq!(StateReader::open(&home).unwrap_err().exit_code(), ExitCode::StateUnusable);

    fs::remove_file(home.database()).unwrap();
    assert!(is_mended(&store.condition(), "deleted"));
    assert_chat_runs(&home);
    assert_eq!(messages(&StateReader::open(&home).unwrap().unwrap()), ["meanwhile", "before"]);
}

#[test]
fn a_database_that_is_moved_away_and_back_is_the_same() {
    let (_folder, home) = temp_home();
    let store = store_in_use(&home);
    let aside = home.state().join("aside");
    fs::rename(home.database(), &aside).unwrap();
    fs::rename(&aside, home.database()).unwrap();
    assert_eq!(store.condition(), StoreCondition::Sound);
    assert_chat_runs(&home);
}

#[test]
fn a_file_that_is_put_over_it_is_not_read_through_the_log_of_the_old_one() {
    let (folder, home) = temp_home();
    let store = store_in_use(&home);
    let put_over = |bytes: &[u8]| {
        let file = folder.path().join("new");
        fs::write(&file, bytes).unwrap();
        fs::rename(file, home.database()).unwrap();
    };
    for garbage in [&b"no database"[..], b""] {
        put_over(garbage);
        assert!(matches!(store.condition(), StoreCondition::Unusable { .. }), "{garbage:?}");
        assert!(fs::read(home.database()).unwrap() == garbage, "the file was changed");
    }
    // A good one that knows nothing: what ran before is carried over.
    let other = HomeLayout::new(folder.path().join("other"));
    drop(StateStore::open(&other).unwrap());
    put_over(&fs::read(other.database()).unwrap());
    assert!(is_mended(&store.condition(), "replaced"));
    assert_chat_runs(&home);
    drop(store);
    assert_sound(&home);
}
