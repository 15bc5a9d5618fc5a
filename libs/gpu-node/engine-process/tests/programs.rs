//! Programs that are waited for: what they hear, what is heard of them, and that nothing outlives them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine_process::{
    ProgramCommand, ProgramEar, ProgramError, ProgramOutput, Stream, run_program, start_mark,
};
use testkit::wait_for;
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Ear {
    heard: Arc<Mutex<Vec<u8>>>,
    news: Arc<Notify>,
}

impl ProgramEar for Ear {
    fn hear(&self, _stream: Stream, bytes: &[u8]) {
        self.heard.lock().unwrap().extend_from_slice(bytes);
        self.news.notify_one();
    }
}

fn shell(script: &str, cwd: &Path) -> ProgramCommand {
    ProgramCommand {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        cwd: cwd.to_owned(),
        stdin: None,
        output_limit: 1024 * 1024,
        grace: Duration::from_millis(300),
    }
}

async fn run(command: ProgramCommand) -> Result<ProgramOutput, ProgramError> {
    tokio::time::timeout(LIMIT, run_program(command, Arc::new(Ear::default()))).await.unwrap()
}

/// Starts a program, waits until it has said this many lines, each a pid, and drops it.
async fn pids_of_dropped(script: &str, lines: usize) -> (Vec<u32>, std::sync::Weak<Ear>) {
    let folder = tempfile::tempdir().unwrap();
    let ear = Arc::new(Ear::default());
    let (gone, heard, news) = (Arc::downgrade(&ear), ear.heard.clone(), ear.news.clone());
    let pids = move || {
        let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
        whole.lines().map(|line| line.parse().unwrap()).collect::<Vec<u32>>()
    };
    let mut program = Box::pin(run_program(shell(script, folder.path()), ear));
    let said = async {
        while pids().len() < lines {
            news.notified().await;
        }
    };
    tokio::select! {
        ended = &mut program => panic!("it ended by itself: {ended:?}"),
        said = tokio::time::timeout(LIMIT, said) => said.unwrap(),
    }
    (pids(), gone)
}

fn wait_for_the_end_of(pids: &[u32]) {
    wait_for("the end of the whole tree", LIMIT, || pids.iter().all(|pid| start_mark(*pid).is_none()));
}

#[tokio::test]
async fn a_program_reads_its_input_and_sees_its_environment_and_its_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut command =
        shell("cat; echo $GREETING; pwd; echo $CARGO_MANIFEST_DIR; echo low >&2; exit 7", folder.path());
    command.stdin = Some(b"in\n".to_vec());
    command.env.push(("GREETING".into(), "hello".into()));
    let output = run(command).await.unwrap();
    assert_eq!(output.status.code(), Some(7));
    let here = folder.path().canonicalize().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("in\nhello\n{}\n\n", here.display()));
    assert_eq!(output.stderr, b"low\n");
}

#[tokio::test]
async fn a_long_input_and_a_long_output_do_not_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = shell("cat", folder.path());
    command.stdin = Some(vec![b'x'; 900_000]);
    assert_eq!(run(command).await.unwrap().stdout.len(), 900_000);
}

#[tokio::test]
async fn an_input_that_nobody_reads_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = shell("exit 0", folder.path());
    command.stdin = Some(vec![b'x'; 900_000]);
    assert_eq!(run(command).await.unwrap().status.code(), Some(0));
}

#[tokio::test]
async fn a_dropped_program_ends_with_its_whole_tree() {
    // One in the group, one that hears no polite request, one that left the group.
    let script = "echo $$; sleep 1000 & echo $!; sh -c 'trap \"\" TERM; echo $$; sleep 1000' & \
                  setsid sh -c 'echo $$; exec sleep 1000' & wait";
    let (pids, ear) = pids_of_dropped(script, 4).await;
    wait_for_the_end_of(&pids);
    wait_for("the ear let go", LIMIT, || ear.upgrade().is_none());
}

#[tokio::test]
async fn a_program_that_ends_politely_is_given_time_to() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("cleaned");
    let script =
        format!("trap 'touch {}; exit 0' TERM; echo $$; while :; do sleep 0.05; done", mark.display());
    let (pids, _) = pids_of_dropped(&script, 1).await;
    wait_for("its own cleaning up", LIMIT, || mark.exists());
    wait_for_the_end_of(&pids);
}

#[tokio::test]
async fn what_a_program_leaves_behind_in_its_group_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(shell("sleep 1000 & echo $!", folder.path())).await.unwrap();
    let left: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    wait_for_the_end_of(&[left]);
}

#[tokio::test]
async fn a_program_that_talks_without_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let result = run(shell("yes", folder.path())).await;
    assert!(matches!(result, Err(ProgramError::TooMuchOutput { limit: 1_048_576, .. })), "{result:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = shell("", folder.path());
    command.program = OsString::from("no-such-program-anywhere");
    let error = run(command).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start no-such-program-anywhere");
    assert!(
        matches!(error, ProgramError::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}
