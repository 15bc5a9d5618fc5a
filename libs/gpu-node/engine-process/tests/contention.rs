//! Many processes that want one lock: never two owners, and nobody named who is none.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "these tests need real processes: this program, started again"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const FOLDER_VARIABLE: &str = "ENGINE_PROCESS_TEST_FOLDER";
const CONTENDERS: usize = 8;
const ROUNDS: usize = 10_000;
const PATIENCE: Duration = Duration::from_mins(2);

/// One of several processes that take turns. Does nothing when it is run as a test.
#[test]
#[ignore = "the other test starts this in processes of its own"]
fn contender() {
    let Ok(folder) = std::env::var(FOLDER_VARIABLE) else { return };
    let folder = PathBuf::from(folder);
    let rounds = File::options().append(true).create(true).open(folder.join("rounds")).unwrap();
    for round in 0..ROUNDS / CONTENDERS {
        let guard = engine_process::acquire(&folder.join("x.lock"), "a turn", PATIENCE).unwrap();
        if round % 50 == 0 {
            let holder = engine_process::holder(&folder.join("x.lock")).unwrap();
            assert_eq!(holder.pid, std::process::id());
        }
        take_a_turn(&folder, &rounds);
        drop(guard);
    }
}

/// A witness that knows nothing of locks: only one process can make a folder that must not exist yet.
fn take_a_turn(folder: &Path, mut rounds: &File) {
    let owner = folder.join("owner");
    std::fs::create_dir(&owner).expect("nobody else owns it now");
    rounds.write_all(b".").unwrap();
    std::fs::remove_dir(owner).unwrap();
}

fn start_contender(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contender", "--ignored", "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn in_ten_thousand_rounds_over_eight_processes_a_lock_never_has_two_owners() {
    let folder = tempfile::tempdir().unwrap();
    let contenders: Vec<Child> = (0..CONTENDERS).map(|_| start_contender(folder.path())).collect();
    for mut contender in contenders {
        assert!(contender.wait().unwrap().success(), "a contender met another owner");
    }
    let rounds = std::fs::metadata(folder.path().join("rounds")).unwrap().len();
    assert_eq!(rounds, ROUNDS as u64);
    assert_eq!(engine_process::holder(&folder.path().join("x.lock")), None);
}
