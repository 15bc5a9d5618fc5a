//! Housekeeping with a home on disk and a clock that jumps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use engine_process::LogFiles;
use orch_core::{DesiredState, EngineProfile, ExitCode, HomeLayout, InstanceName};
use pool_manager::{EngineResolver, PoolManager};
use state_store::{EventQuery, StateStore};

use super::*;
use crate::node::NoTraffic;

struct NoEngines;

impl EngineResolver for NoEngines {
    fn resolve(&self, _: &instance_config::InstanceConfig) -> Result<EngineProfile, Failure> {
        Err(Failure::new(ExitCode::EngineNotFound, "none here"))
    }

    fn profile(&self, _: &Path) -> Result<EngineProfile, Failure> {
        Err(Failure::new(ExitCode::EngineNotFound, "none here"))
    }

    fn devices(&self, _: &Path) -> Vec<orch_core::DeviceInfo> {
        Vec::new()
    }
}

/// A home with the instance `chat`, whose logs are kept for two days.
fn node() -> (tempfile::TempDir, Arc<Node>) {
    let folder = tempfile::tempdir().unwrap();
    let home = HomeLayout::new(folder.path());
    let chat = InstanceName::new("chat").unwrap();
    let config = json!({"name": "chat", "model": {"path": "m.gguf"}, "logs": {"retention_days": 2}});
    fs::create_dir_all(home.instances().join("chat")).unwrap();
    fs::create_dir_all(home.instance_logs(&chat)).unwrap();
    fs::write(home.instance_config(&chat), config.to_string()).unwrap();
    let node = Node {
        store: StateStore::open(&home).unwrap(),
        home,
        engines: Arc::new(NoEngines),
        shim_executable: PathBuf::new(),
        parent_environment: Vec::new(),
    };
    (folder, Arc::new(node))
}

fn logs_of_chat(node: &Node) -> LogFiles {
    let folder = node.home.instance_logs(&InstanceName::new("chat").unwrap());
    LogFiles { stdout: folder.join("stdout.log"), stderr: folder.join("stderr.log") }
}

fn write_aged(path: PathBuf, age: Duration) {
    fs::write(&path, "x").unwrap();
    let written = SystemTime::UNIX_EPOCH.elapsed().unwrap().checked_sub(age).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + written).unwrap();
}

fn append(node: &Node, message: &str, age: Duration) {
    let event = NewEvent {
        instance: None,
        level: EventLevel::Info,
        event_type: EventType::Reconciled,
        message: message.to_owned(),
        meta: None,
    };
    let at = UnixMillis::now().0 - i64::try_from(age.as_millis()).unwrap();
    node.store.append_event(&event, UnixMillis(at)).unwrap();
}

fn messages(node: &Node) -> Vec<String> {
    node.store.events(&EventQuery::default()).unwrap().into_iter().map(|row| row.message).collect()
}

const DAY: Duration = Duration::from_hours(24);

#[test]
fn events_and_logs_over_their_retention_go_and_the_rest_stays() {
    let (_folder, node) = node();
    append(&node, "old", 8 * DAY);
    append(&node, "young", 6 * DAY);
    let logs = logs_of_chat(&node);
    write_aged(logs.stderr.clone(), 9 * DAY);
    write_aged(logs.stderr.with_file_name("stderr.log.1"), DAY);
    write_aged(logs.stderr.with_file_name("stderr.log.2"), 3 * DAY);
    write_aged(logs.stdout.with_file_name("stdout.log.1.index"), 3 * DAY);
    write_aged(logs.stdout.with_file_name("stdout.20251021_101500.log"), 3 * DAY);
    write_aged(logs.stdout.with_file_name("notes.txt"), 9 * DAY);

    let tidied = tidy(&node);
    assert_eq!(tidied.pruned.unwrap().events, 1);
    assert_eq!(messages(&node), ["young"]);
    assert_eq!(tidied.logs_removed, 3);
    let mut left: Vec<_> = fs::read_dir(logs.stderr.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["notes.txt", "stderr.log", "stderr.log.1"]);
    assert_eq!(tidied.logs_total, ByteCount(3));
    assert!(tidied.resident.unwrap() > ByteCount(0));
}

#[test]
fn a_broken_config_keeps_nothing_else_from_being_tidied() {
    let (_folder, node) = node();
    fs::create_dir_all(node.home.instances().join("broken")).unwrap();
    fs::write(node.home.instances().join("broken/config.json"), "{").unwrap();
    write_aged(logs_of_chat(&node).stderr.with_file_name("stderr.log.2"), 3 * DAY);
    assert_eq!(tidy(&node).logs_removed, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_goes_when_the_daemon_starts_and_every_hour_after_that() {
    let (_folder, node) = node();
    let tasks = Tasks::new();
    append(&node, "old at the start", 8 * DAY);
    keep_house(&node, &tasks, |_| ());
    until(&node, |messages| messages.is_empty()).await;
    let begun = tokio::time::Instant::now();
    append(&node, "old an hour later", 8 * DAY);
    until(&node, |messages| messages.is_empty()).await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_mins(55) && waited < Duration::from_mins(65), "{waited:?}");
    tasks.shutdown(Duration::from_secs(1)).await;
}

/// Time passes only while everybody waits.
async fn until(node: &Node, is_so: impl Fn(&[String]) -> bool) {
    for _ in 0..4000 {
        if is_so(&messages(node)) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came to that: {:?}", messages(node));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_lost_database_is_written_again_within_seconds_and_an_event_says_so() {
    let (_folder, node) = node();
    let tasks = Tasks::new();
    append(&node, "before", Duration::ZERO);
    keep_house(&node, &tasks, |_| ());
    let begun = tokio::time::Instant::now();
    fs::remove_file(node.home.database()).unwrap();
    until(&node, |messages| messages.first().is_some_and(|it| it.contains("was deleted"))).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(messages(&node).last().unwrap(), "before");
    assert!(node.home.database().exists());
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn whoever_asks_is_told_when_the_database_becomes_unusable_and_when_it_is_usable_again() {
    let (_folder, node) = node();
    let tasks = Tasks::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    keep_house(&node, &tasks, move |trouble| listener.lock().unwrap().push(trouble.is_some()));
    let wait_for = async |expected: &[bool]| {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if *heard.lock().unwrap() == expected {
                return;
            }
        }
        panic!("heard {:?}, not {expected:?}", heard.lock().unwrap());
    };
    let garbage = node.home.root().join("garbage");
    fs::write(&garbage, "no database at all").unwrap();
    fs::rename(garbage, node.home.database()).unwrap();
    wait_for(&[true]).await;
    fs::remove_file(node.home.database()).unwrap();
    wait_for(&[true, false]).await;
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn supervision_begins_when_the_state_can_be_read_at_last() {
    let (_folder, node) = node();
    let chat = InstanceName::new("chat").unwrap();
    let now = UnixMillis::now();
    let config = node.home.instance_config(&chat);
    node.store.ensure_instance(&chat, "uid", &config, DesiredState::OnDemand, now).unwrap();
    let direct = rusqlite::Connection::open(node.home.database()).unwrap();
    direct.execute("UPDATE instances SET desired_state = 'sleeping'", []).unwrap();

    let tasks = Tasks::new();
    let manager = PoolManager::start(Arc::clone(&node), Arc::new(NoTraffic), &tasks).await.unwrap();
    let desired = || manager.snapshots().first().map(|snapshot| snapshot.desired);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(desired(), Some(DesiredState::Stopped), "what its config says, until more is known");
    direct.execute("UPDATE instances SET desired_state = 'on_demand'", []).unwrap();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if desired() == Some(DesiredState::OnDemand) {
            tasks.shutdown(Duration::from_secs(1)).await;
            return;
        }
    }
    panic!("supervision did not begin: {:?}", desired());
}
