//! A database of the older tool becomes ours: everything in it is kept, and nothing is ever half done.

use std::fs;
use std::path::PathBuf;

use orch_core::{DesiredState, EventType, ExitCode, Health, HomeLayout, Status, UnixMillis};
use rusqlite::Connection;
use serde_json::json;
use state_store::{
    DatabaseKind, EventQuery, LivingProcess, Migration, MigrationStep, OldProcess, StateReader, StateStore,
    StoreError, inspect, migrate, preview,
};

use crate::older::{FIRST_VERSION, THIRD_VERSION, write_database};
use crate::processes::assert_sound;
use crate::traces::snapshot;
use crate::{FIRST, NOW, name, temp_home};

/// Only the process of `gemma` still runs.
pub(crate) fn gemma_runs(process: &OldProcess) -> Option<LivingProcess> {
    (process.name == name("gemma")).then(|| LivingProcess {
        process_started_at: "boot:7".to_owned(),
        exe: "/opt/llama-server".into(),
        port: process.port.unwrap_or(8001),
    })
}

fn migrate_all(home: &HomeLayout) -> Result<Option<Migration>, StoreError> {
    migrate(home, NOW, &mut gemma_runs, &mut |_| ())
}

fn files_of(home: &HomeLayout) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(home.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_migrated_database_is_ours_and_everything_in_it_is_kept() {
    let (_folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    let migration = migrate_all(&home).unwrap().unwrap();
    assert_eq!(migration.from, 3);
    assert_eq!(migration.instances, [name("broken"), name("gemma"), name("qwen")]);
    assert_eq!(migration.running, [name("gemma")]);
    assert_eq!(inspect(&home).unwrap(), DatabaseKind::Current);
    assert_sound(&home);

    let store = StateStore::open(&home).unwrap();
    let gemma = store.runtime(&name("gemma"), FIRST).unwrap().unwrap();
    assert_eq!((gemma.pid, gemma.port, gemma.restarts), (Some(4711), Some(8001), 2));
    assert_eq!((gemma.status, gemma.health), (Status::Running, Health::Healthy));
    assert_eq!(gemma.process_started_at.as_deref(), Some("boot:7"));
    assert_eq!(gemma.exe, Some(PathBuf::from("/opt/llama-server")));
    let checks = store.health_history(&name("gemma"), 9).unwrap();
    assert_eq!(checks[0].checked_at, UnixMillis(1_700_000_061_500));
    let events = store.events(&EventQuery { newest_first: false, ..EventQuery::default() }).unwrap();
    let told: Vec<&str> = events.iter().map(|row| row.message.as_str()).collect();
    assert_eq!(told[..4], ["started", "crashed", "crashed again", ""]);
    assert_eq!(events[0].instance.as_deref(), Some("gemma"));
    assert_eq!(events[1].meta, Some(json!({"code": 1, "instance": "gone"})), "the lost name stays readable");
    assert_eq!(events[2].meta, Some(json!({"meta": "no json", "instance": "gone"})));
    assert_eq!(events[4].event_type, EventType::Migrated.label());
    assert_eq!(events[4].ts, NOW);
}

#[test]
fn what_ran_and_still_runs_stays_wanted_and_everything_else_is_stopped() {
    let (_folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    let mut asked = Vec::new();
    migrate(
        &home,
        NOW,
        &mut |process| {
            asked.push(process.clone());
            gemma_runs(process)
        },
        &mut |_| (),
    )
    .unwrap();
    let pids: Vec<(u32, Option<u16>)> = asked.iter().map(|process| (process.pid, process.port)).collect();
    assert_eq!(pids, [(4711, Some(8001)), (4712, Some(8002))], "only what was running is asked for");
    let store = StateStore::open(&home).unwrap();
    assert_eq!(store.desired(&name("gemma")).unwrap(), Some(DesiredState::Running));
    for instance in ["qwen", "broken"] {
        assert_eq!(store.desired(&name(instance)).unwrap(), Some(DesiredState::Stopped), "{instance}");
    }
    let qwen = store.runtime(&name("qwen"), FIRST).unwrap().unwrap();
    assert_eq!((qwen.pid, qwen.status, qwen.health), (None, Status::Stopped, Health::Unknown));
    let broken = store.runtime(&name("broken"), FIRST).unwrap().unwrap();
    assert_eq!((broken.status, broken.last_error.as_deref()), (Status::Error, Some("model missing")));
}

#[test]
fn the_first_version_is_migrated_too() {
    let (_folder, home) = temp_home();
    write_database(&home, FIRST_VERSION);
    let migration = migrate_all(&home).unwrap().unwrap();
    assert_eq!((migration.from, migration.running), (1, vec![name("gemma")]));
    assert!(migration.backup.unwrap().ends_with("state.sqlite.v1.backup"));
    assert_sound(&home);
    StateStore::open(&home).unwrap();
}

#[test]
fn no_secret_of_an_old_command_line_stays_in_the_database() {
    let (_folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    migrate_all(&home).unwrap();
    let connection = Connection::open(home.database()).unwrap();
    let lines: String =
        connection.query_row("SELECT group_concat(cmdline) FROM runtime", [], |row| row.get(0)).unwrap();
    assert!(lines.contains("--port 8001") && !lines.contains("hunter22"), "{lines}");
}

#[test]
fn the_backup_is_the_old_database_whole_and_readable() {
    let (folder, home) = temp_home();
    write_database(&home, &format!("PRAGMA journal_mode = WAL; {THIRD_VERSION}"));
    let backup = migrate_all(&home).unwrap().unwrap().backup.unwrap();
    assert_eq!(backup, home.state().join("state.sqlite.v3.backup"));
    let restored = HomeLayout::new(folder.path().join("restored"));
    fs::create_dir_all(restored.state()).unwrap();
    fs::copy(&backup, restored.database()).unwrap();
    assert_eq!(inspect(&restored).unwrap(), DatabaseKind::Older { version: 3 });
    let reader = StateReader::open(&restored).unwrap().unwrap();
    assert_eq!(reader.runtimes().unwrap().len(), 3);
    assert_eq!(reader.events(&EventQuery::default()).unwrap().len(), 4);
}

#[cfg(unix)]
#[test]
fn the_backup_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    let backup = migrate_all(&home).unwrap().unwrap().backup.unwrap();
    assert_eq!(fs::metadata(backup).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_existing_backup_is_never_overwritten() {
    let (_folder, home) = temp_home();
    let expected = [".v3.backup", ".v3.backup.1", ".v3.backup.2"];
    for round in 0..3 {
        let _ = fs::remove_file(home.database());
        write_database(&home, &format!("{THIRD_VERSION} UPDATE instances SET restart_count = {round};"));
        migrate_all(&home).unwrap();
    }
    let mut rounds = Vec::new();
    for suffix in expected {
        let backup = home.state().join(format!("state.sqlite{suffix}"));
        let connection = Connection::open(backup).unwrap();
        let count: i64 =
            connection.query_row("SELECT restart_count FROM instances", [], |row| row.get(0)).unwrap();
        rounds.push(count);
    }
    assert_eq!(rounds, [0, 1, 2]);
}

#[test]
fn a_second_migration_finds_nothing_to_do() {
    let (folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    migrate_all(&home).unwrap().unwrap();
    let before = snapshot(folder.path());
    assert_eq!(migrate_all(&home).unwrap(), None);
    assert_eq!(preview(&home, &mut gemma_runs).unwrap(), None);
    assert!(snapshot(folder.path()) == before);
}

#[test]
fn a_fresh_home_has_nothing_to_migrate_and_gets_no_backup() {
    let (folder, home) = temp_home();
    assert_eq!(migrate_all(&home).unwrap(), None);
    assert_eq!(snapshot(folder.path()).len(), 0, "nothing was made");
    drop(StateStore::open(&home).unwrap());
    assert_eq!(migrate_all(&home).unwrap(), None);
    assert_eq!(files_of(&home), ["state.sqlite"]);
}

#[test]
fn the_preview_says_what_the_migration_then_does() {
    let (_folder, home) = temp_home();
    write_database(&home, THIRD_VERSION);
    let told = preview(&home, &mut gemma_runs).unwrap().unwrap();
    let done = migrate_all(&home).unwrap().unwrap();
    assert_eq!(told.backup, None);
    assert_eq!(Migration { backup: None, ..done }, told);
}

#[test]
fn rows_with_impossible_names_are_reported_and_do_not_stop_the_migration() {
    let (_folder, home) = temp_home();
    write_database(
        &home,
        &format!(
            "{THIRD_VERSION} INSERT INTO runtime (name, status) VALUES ('My Model', 'running'), ('all', 'stopped');"
        ),
    );
    let migration = migrate_all(&home).unwrap().unwrap();
    assert_eq!(migration.ignored, ["My Model", "all"]);
    assert_eq!(migration.instances.len(), 3);
    let store = StateStore::open(&home).unwrap();
    let event = &store.events(&EventQuery::default()).unwrap()[0];
    assert!(event.message.contains("2 rows with impossible names"), "{}", event.message);
    assert_eq!(event.meta.as_ref().unwrap()["ignored"], json!(["My Model", "all"]));
}

#[test]
fn a_writer_refuses_an_old_database_until_it_is_migrated() {
    let (_folder, home) = temp_home();
    let before = write_database(&home, THIRD_VERSION);
    let error = StateStore::open(&home).unwrap_err();
    assert!(matches!(error, StoreError::OlderTool { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::StateUnusable);
    assert!(fs::read(home.database()).unwrap() == before);
}

/// Damage behind the first page, which only a look at all pages finds.
fn damage(home: &HomeLayout) {
    let mut bytes = fs::read(home.database()).unwrap();
    bytes[4096..].chunks_mut(4096).for_each(|page| page[..64].fill(0xA5));
    fs::write(home.database(), bytes).unwrap();
}

#[test]
fn what_cannot_be_migrated_is_refused_with_34_and_nothing_is_left_behind() {
    let newer =
        "CREATE TABLE schema_info (key TEXT, value TEXT); INSERT INTO schema_info VALUES ('version', '4');";
    for (sql, damaged) in [(newer, false), (THIRD_VERSION, true)] {
        let (folder, home) = temp_home();
        write_database(&home, sql);
        if damaged {
            damage(&home);
        }
        let before = snapshot(folder.path());
        let refused = migrate_all(&home).unwrap_err();
        assert_eq!(refused.exit_code(), ExitCode::StateUnusable, "{refused}");
        assert!(snapshot(folder.path()) == before, "{refused}");
    }
}

#[test]
fn a_migration_that_fails_half_way_leaves_the_old_state() {
    let steps =
        [MigrationStep::Checked, MigrationStep::BackedUp, MigrationStep::Converted, MigrationStep::Verified];
    for failing in steps {
        let (_folder, home) = temp_home();
        let before = write_database(&home, &format!("PRAGMA journal_mode = WAL; {THIRD_VERSION}"));
        let failed = std::panic::catch_unwind(|| {
            migrate(&home, NOW, &mut gemma_runs, &mut |step| assert!(step != failing, "a fault at {step:?}"))
        });
        assert!(failed.is_err());
        assert_eq!(inspect(&home).unwrap(), DatabaseKind::Older { version: 3 });
        assert!(fs::read(home.database()).unwrap() == before, "{failing:?}");
    }
}

#[test]
fn a_full_disk_during_the_backup_leaves_the_old_state_and_no_backup() {
    let (_folder, home) = temp_home();
    let before = write_database(&home, &format!("PRAGMA journal_mode = WAL; {THIRD_VERSION}"));
    // A folder where the copy is to be written: nothing can be written there.
    fs::create_dir_all(home.state().join("state.sqlite.v3.backup.part/x")).unwrap();
    let error = migrate_all(&home).unwrap_err();
    assert!(error.to_string().contains("state.sqlite.v3.backup.part"), "{error}");
    assert!(fs::read(home.database()).unwrap() == before);
    assert_eq!(files_of(&home), ["state.sqlite", "state.sqlite.v3.backup.part"]);
    fs::remove_dir_all(home.state().join("state.sqlite.v3.backup.part")).unwrap();
    migrate_all(&home).unwrap().unwrap();
}
