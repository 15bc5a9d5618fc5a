//! A migration that is killed: whenever it happens, the home holds the old state or the new one.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests kill real processes: this program, started again"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orch_core::{EventType, HomeLayout};
use state_store::{DatabaseKind, EventQuery, MigrationStep, StateReader, StateStore, inspect, migrate};
use testkit::wait_for;

use crate::migrating::gemma_runs;
use crate::older::{THIRD_VERSION, write_database};
use crate::processes::assert_sound;
use crate::{NOW, name, temp_home};

const HOME_VARIABLE: &str = "STATE_STORE_MIGRATION_HOME";
const STEP_VARIABLE: &str = "STATE_STORE_MIGRATION_DIES_AT";
const PATIENCE: Duration = Duration::from_mins(1);
/// Enough rows for a migration that takes some milliseconds.
const MANY_EVENTS: &str = "
WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 3000)
INSERT INTO events (ts, instance_name, level, event_type, message)
SELECT 1700000002 + n, 'gemma', 'info', 'tick', 'event number ' || n FROM counter;";
const EVENTS: usize = 3004;

/// The one that is killed. Does nothing when it is run as a test.
#[test]
#[ignore = "the other tests start this in a process of its own"]
fn victim() {
    let Ok(home) = std::env::var(HOME_VARIABLE) else { return };
    let home = HomeLayout::new(PathBuf::from(home));
    let dies_at = std::env::var(STEP_VARIABLE).unwrap_or_default();
    let mut on_step = |step: MigrationStep| {
        if format!("{step:?}") == dies_at {
            // No destructor runs, as with kill -9.
            std::process::abort();
        }
    };
    std::fs::write(home.root().join("begun"), "").unwrap();
    migrate(&home, NOW, &mut gemma_runs, &mut on_step).unwrap();
}

fn start_victim(home: &HomeLayout, dies_at: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_migration::victim", "--ignored", "--nocapture"])
        .env(HOME_VARIABLE, home.root())
        .env(STEP_VARIABLE, dies_at)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn old_home() -> (tempfile::TempDir, HomeLayout) {
    let (folder, home) = temp_home();
    write_database(&home, &format!("PRAGMA journal_mode = WAL; {THIRD_VERSION} {MANY_EVENTS}"));
    (folder, home)
}

/// Whole, in either form, and readable as it lies there. True if it is the new one.
fn assert_old_or_new(home: &HomeLayout) -> bool {
    assert_sound(home);
    let kind = inspect(home).unwrap();
    let migrated = match kind {
        DatabaseKind::Current => true,
        DatabaseKind::Older { version: 3 } => false,
        other => panic!("neither old nor new: {other:?}"),
    };
    let reader = StateReader::open(home).unwrap().unwrap();
    assert_eq!(reader.instances().unwrap().len(), 3);
    let all = EventQuery { limit: usize::MAX, ..EventQuery::default() };
    let events = reader.events(&all).unwrap();
    assert_eq!(events.len(), EVENTS + usize::from(migrated));
    let told = events.iter().filter(|row| row.event_type == EventType::Migrated.label()).count();
    assert_eq!(told, usize::from(migrated));
    migrated
}

/// The next writing command brings it to an end, and whoever comes then writes as if nothing had happened.
fn assert_can_go_on(home: &HomeLayout, was_migrated: bool) {
    let second = migrate(home, NOW, &mut gemma_runs, &mut |_| ()).unwrap();
    assert_eq!(second.is_none(), was_migrated);
    assert!(assert_old_or_new(home));
    let store = StateStore::open(home).unwrap();
    assert!(store.runtime(&name("gemma"), crate::FIRST).unwrap().unwrap().pid.is_some());
    drop(store);
    let backups = std::fs::read_dir(home.state()).unwrap().filter(|entry| {
        let file = entry.as_ref().unwrap().file_name().into_string().unwrap();
        assert!(!file.contains(".part"), "a half written backup was left behind: {file}");
        file.contains(".backup")
    });
    assert_eq!(backups.count(), 1, "the same old database needs one backup, however often it is tried");
}

#[test]
fn a_migration_killed_at_any_of_its_steps_leaves_the_old_or_the_new_state() {
    let steps = [
        (MigrationStep::Checked, false),
        (MigrationStep::BackedUp, false),
        (MigrationStep::Converted, false),
        (MigrationStep::Verified, false),
        (MigrationStep::Committed, true),
    ];
    for (step, expected) in steps {
        let (_folder, home) = old_home();
        let died = start_victim(&home, &format!("{step:?}")).wait().unwrap();
        assert!(!died.success(), "it was to die at {step:?}");
        let migrated = assert_old_or_new(&home);
        assert_eq!(migrated, expected, "{step:?}");
        assert_can_go_on(&home, migrated);
    }
}

#[test]
fn a_migration_killed_at_random_moments_leaves_the_old_or_the_new_state() {
    const KILLS: u32 = 24;
    // How long a whole one takes here and now is the span in which the kills fall.
    let (_folder, home) = old_home();
    let whole = span_of(&home);
    let mut outcomes = [0_u32; 2];
    for kill in 0..KILLS {
        let (_folder, home) = old_home();
        let mut victim = start_victim(&home, "");
        wait_for("the victim to begin", PATIENCE, || home.root().join("begun").exists());
        let begun = Instant::now();
        let moment = whole * kill / KILLS * 5 / 4;
        while begun.elapsed() < moment {
            std::hint::spin_loop();
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let migrated = assert_old_or_new(&home);
        outcomes[usize::from(migrated)] += 1;
        assert_can_go_on(&home, migrated);
    }
    assert!(outcomes[0] > 0, "no kill fell before the commit: {outcomes:?}");
}

fn span_of(home: &HomeLayout) -> Duration {
    let begun = Instant::now();
    migrate(home, NOW, &mut gemma_runs, &mut |_| ()).unwrap().unwrap();
    begun.elapsed()
}

#[test]
fn processes_that_migrate_the_same_database_at_once_do_it_once() {
    let (_folder, home) = old_home();
    let migrators: Vec<Child> = (0..4).map(|_| start_victim(&home, "")).collect();
    for mut migrator in migrators {
        assert!(migrator.wait().unwrap().success());
    }
    assert!(assert_old_or_new(&home));
    assert_can_go_on(&home, true);
}

#[test]
fn readers_during_a_migration_see_the_old_or_the_new_state() {
    let (_folder, home) = old_home();
    let mut migrator = start_victim(&home, "");
    while migrator.try_wait().unwrap().is_none() {
        let reader = StateReader::open(&home).unwrap().unwrap();
        assert_eq!(reader.instances().unwrap().len(), 3);
    }
    assert!(assert_old_or_new(&home));
}
