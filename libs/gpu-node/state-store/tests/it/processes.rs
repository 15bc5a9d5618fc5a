//! Several processes at once, and processes that are killed in the middle.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests need real processes: this program, started again"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orch_core::{EventLevel, EventType, Health, HomeLayout, UnixMillis};
use rusqlite::Connection;
use state_store::{EventQuery, NewEvent, StateReader, StateStore};
use testkit::wait_for;

use crate::{FIRST, NOW, know, name, temp_home};

const HOME_VARIABLE: &str = "STATE_STORE_TEST_HOME";
const ROUNDS_VARIABLE: &str = "STATE_STORE_TEST_ROUNDS";
const PATIENCE: Duration = Duration::from_mins(1);

/// One of several processes that write to the same home. Does nothing when it is run as a test.
#[test]
#[ignore = "the other tests start this in processes of its own"]
fn worker() {
    let (Ok(home), Ok(rounds)) = (std::env::var(HOME_VARIABLE), std::env::var(ROUNDS_VARIABLE)) else {
        return;
    };
    let store = StateStore::open(&HomeLayout::new(PathBuf::from(home))).unwrap();
    know(&store, "chat");
    for round in 0..rounds.parse::<i64>().unwrap() {
        write_a_round(&store, UnixMillis(round));
    }
}

fn write_a_round(store: &StateStore, now: UnixMillis) {
    let chat = name("chat");
    store.record_restarted(&chat, FIRST, now).unwrap();
    store.record_health_check(&chat, FIRST, Health::Healthy, Some(1), None, now).unwrap();
    let event = NewEvent {
        instance: Some(&chat),
        level: EventLevel::Info,
        event_type: EventType::Restarted,
        message: "again".to_owned(),
        meta: None,
    };
    store.append_event(&event, now).unwrap();
}

fn start_worker(home: &HomeLayout, rounds: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::worker", "--ignored", "--nocapture"])
        .env(HOME_VARIABLE, home.root())
        .env(ROUNDS_VARIABLE, rounds.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn assert_sound(home: &HomeLayout) {
    let connection = Connection::open(home.database()).unwrap();
    let finding: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(finding, "ok");
    let orphans = connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap();
    assert!(!orphans, "a row refers to an instance that is not there");
}

#[test]
fn processes_that_create_and_write_the_same_database_lose_nothing() {
    const WORKERS: u32 = 4;
    const ROUNDS: u32 = 40;
    let (_folder, home) = temp_home();
    let workers: Vec<Child> = (0..WORKERS).map(|_| start_worker(&home, ROUNDS)).collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    assert_sound(&home);
    let reader = StateReader::open(&home).unwrap().unwrap();
    let row = reader.runtime(&name("chat"), FIRST).unwrap().unwrap();
    assert_eq!(row.restarts, WORKERS * ROUNDS);
    let everything = EventQuery { limit: usize::MAX, ..EventQuery::default() };
    assert_eq!(reader.events(&everything).unwrap().len(), (WORKERS * ROUNDS) as usize);
}

#[test]
fn threads_that_share_a_store_and_threads_with_their_own_lose_nothing() {
    const ROUNDS: i64 = 25;
    let (_folder, home) = temp_home();
    let shared = StateStore::open(&home).unwrap();
    know(&shared, "chat");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..ROUNDS).for_each(|round| write_a_round(&shared, UnixMillis(round))));
            scope.spawn(|| {
                let own = StateStore::open(&home).unwrap();
                (0..ROUNDS).for_each(|round| write_a_round(&own, UnixMillis(round)));
            });
        }
    });
    assert_eq!(shared.runtime(&name("chat"), FIRST).unwrap().unwrap().restarts, 100);
}

#[test]
fn a_writer_killed_at_any_moment_leaves_whole_transactions() {
    let (_folder, home) = temp_home();
    for kill in 0_usize..8 {
        let mut worker = start_worker(&home, u32::MAX);
        let progress = || events_so_far(&home);
        let before = progress();
        // The first kills fall into the creation of the database, the later ones into its use.
        if kill < 3 {
            wait_for("the database file", PATIENCE, || home.database().exists());
        } else {
            wait_for("the worker to have written", PATIENCE, || progress() >= before + kill);
        }
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let store = StateStore::open(&home).unwrap();
    know(&store, "chat");
    write_a_round(&store, NOW);
    assert_sound(&home);
    // A health check writes its row and the replica's in one transaction: neither is ever ahead.
    let newest = store.health_history(&name("chat"), 1).unwrap()[0].checked_at;
    assert_eq!(store.runtime(&name("chat"), FIRST).unwrap().unwrap().last_seen_at, Some(newest));
}

fn events_so_far(home: &HomeLayout) -> usize {
    let everything = EventQuery { limit: usize::MAX, ..EventQuery::default() };
    StateReader::open(home).unwrap().map_or(0, |reader| reader.events(&everything).unwrap().len())
}
