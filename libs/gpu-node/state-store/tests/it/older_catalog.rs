//! The older tool's catalog database.

use std::fs;

use orch_core::ExitCode;
use rusqlite::Connection;
use state_store::{OlderCatalogRow, read_older_catalog};
use testkit::OldHome;

use crate::temp_home;

#[test]
fn a_home_without_a_catalog_has_no_rows() {
    let (_folder, home) = temp_home();
    assert_eq!(read_older_catalog(&home).unwrap(), []);
    assert!(!home.root().exists());
}

#[test]
fn every_instance_is_read_with_what_is_known_of_it_and_nothing_is_left_behind() {
    let (_folder, home) = temp_home();
    OldHome { instances: 16, ..OldHome::default() }.write(home.root());
    let files =
        || fs::read_dir(home.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let before = files();
    let rows = read_older_catalog(&home).unwrap();
    assert_eq!(files(), before);
    assert_eq!(rows.len(), 16);
    let row = rows.iter().find(|row| row.name == "model-01").unwrap();
    assert_eq!((row.number.as_deref(), row.sort_order), (Some("00000002"), Some(1)));
    assert_eq!(row.display_name.as_deref(), Some("Model 1"));
}

#[test]
fn columns_of_later_versions_may_be_missing_and_numbers_may_be_numbers() {
    let (_folder, home) = temp_home();
    fs::create_dir_all(home.state()).unwrap();
    let path = home.state().join("instance_catalog.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE instances (instance_no INTEGER, name TEXT);
             INSERT INTO instances VALUES (7, 'chat'), (8, NULL), (NULL, X'00');",
        )
        .unwrap();
    let rows = read_older_catalog(&home).unwrap();
    let chat =
        OlderCatalogRow { number: Some("7".to_owned()), name: "chat".to_owned(), ..Default::default() };
    assert_eq!(rows, std::slice::from_ref(&chat), "while its writer lives");
    drop(connection);
    assert_eq!(read_older_catalog(&home).unwrap(), [chat]);
}

#[test]
fn what_is_no_catalog_is_an_error_that_names_the_file() {
    let (_folder, home) = temp_home();
    fs::create_dir_all(home.state()).unwrap();
    let path = home.state().join("instance_catalog.sqlite");
    fs::write(&path, "not a database, and long enough to be looked at").unwrap();
    let damaged = read_older_catalog(&home).unwrap_err();
    assert!(damaged.to_string().contains("instance_catalog.sqlite"), "{damaged}");
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let foreign = read_older_catalog(&home).unwrap_err();
    assert_eq!(orch_core::Failure::from(foreign).exit, ExitCode::StateUnusable);
}
