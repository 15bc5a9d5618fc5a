//! Runs looked at while they are written, cut short, taken up again and over.

use std::path::Path;
use std::time::Duration;

use orch_core::{ExitCode, Failure, UnixMicros};

use super::*;
use crate::{EventType, JobFacts, JobId, Recorder, RunFolder};

fn id(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

fn create(runs: &Path, name: &str) -> Recorder {
    Recorder::open(RunFolder::create(runs, &id(name), "notes", "test").unwrap(), None).unwrap()
}

fn begin(recorder: &mut Recorder, project: &str) {
    let steps = &["plan", "write"];
    recorder.job_started(&JobFacts { project, provider: "local", task: None, spec_sha256: "5e", steps });
    recorder.step_started("plan", 1, &[], "k");
    recorder.flush().unwrap();
}

fn now() -> UnixMicros {
    UnixMicros::now()
}

#[test]
fn a_run_is_running_while_somebody_has_it_and_interrupted_after_that() {
    let home = tempfile::tempdir().unwrap();
    let runs = Runs::new(home.path());
    let mut recorder = create(home.path(), "job_a");
    assert_eq!(runs.view(&id("job_a")).unwrap().status, RunStatus::Running, "it is about to begin");
    begin(&mut recorder, "notes");
    let view = runs.view(&id("job_a")).unwrap();
    assert_eq!(view.status, RunStatus::Running);
    assert_eq!(view.holder.unwrap().pid, std::process::id());
    recorder.write_manifest().unwrap();
    drop(recorder);
    let view = runs.view(&id("job_a")).unwrap();
    assert_eq!((view.status, view.holder), (RunStatus::Interrupted, None));
    let (rows, troubles) = runs.list(now()).unwrap();
    assert_eq!((rows[0].status, troubles.len()), (RunStatus::Interrupted, 0));
}

#[test]
fn a_run_that_was_submitted_and_has_not_begun_is_queued() {
    let home = tempfile::tempdir().unwrap();
    let runs = Runs::new(home.path());
    let recorder = create(home.path(), "job_a");
    let owner = crate::owner_file(&runs.path(&id("job_a")));
    std::fs::create_dir_all(owner.parent().unwrap()).unwrap();
    std::fs::write(owner, "{}").unwrap();
    drop(recorder);
    assert_eq!(runs.view(&id("job_a")).unwrap().status, RunStatus::Queued);
    assert_eq!(runs.list(now()).unwrap().0[0].status, RunStatus::Queued);
    let (folder, past) = RunFolder::resume(home.path(), &id("job_a"), "test").unwrap();
    let mut recorder = Recorder::open(folder, Some(&past)).unwrap();
    begin(&mut recorder, "notes");
    drop(recorder);
    assert_eq!(runs.view(&id("job_a")).unwrap().status, RunStatus::Interrupted, "it has begun");
}

#[test]
fn the_list_has_the_newest_first_and_believes_no_manifest_that_knows_too_little() {
    let home = tempfile::tempdir().unwrap();
    let runs = Runs::new(home.path());
    for (name, project) in [("job_b", "notes"), ("job_a", "other"), ("job_c", "notes")] {
        let mut recorder = create(home.path(), name);
        begin(&mut recorder, project);
        recorder.write_manifest().unwrap();
        recorder.job_succeeded(Duration::from_secs(2));
        // The process is killed before the manifest follows; of one run it does.
        recorder.flush().unwrap();
        if name == "job_a" {
            recorder.write_manifest().unwrap();
        }
    }
    // The journal of a run that is over need not be read for a row.
    let journal = home.path().join("job_a/events.jsonl");
    let length = journal.metadata().unwrap().len();
    std::fs::write(&journal, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
    std::fs::create_dir(home.path().join("not-a-run")).unwrap();

    let (rows, _) = runs.list(now()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.job_id.as_str()).collect();
    assert_eq!(names, ["job_c", "job_a", "job_b"]);
    assert!(rows.iter().all(|row| row.status == RunStatus::Succeeded && row.steps == 2));
    assert_eq!(rows[0].duration_s, Some(2.0));
    assert_eq!(runs.find("last", now()).unwrap(), id("job_c"));
    assert_eq!(runs.newest_of("other", now()).unwrap(), Some(id("job_a")));
    assert_eq!(runs.newest_of("nobody's", now()).unwrap(), None);
}

#[test]
fn a_run_is_found_by_as_much_of_its_name_as_no_other_has() {
    let home = tempfile::tempdir().unwrap();
    let runs = Runs::new(home.path().join("runs"));
    assert_eq!(Failure::from(runs.find("last", now()).unwrap_err()).exit, ExitCode::JobNotFound);
    assert!(!runs.root().exists(), "looking creates nothing");
    for name in ["job_a", "job_ab", "job_b"] {
        drop(create(runs.root(), name));
    }
    assert_eq!(runs.find("job_a", now()).unwrap(), id("job_a"));
    assert_eq!(runs.find("job_b", now()).unwrap(), id("job_b"));
    assert_eq!(runs.find("job_ab", now()).unwrap(), id("job_ab"));
    let several = Failure::from(runs.find("job_", now()).unwrap_err());
    assert_eq!(several.exit, ExitCode::Usage);
    assert!(several.message.ends_with("job_a, job_ab, job_b"), "{several}");
    for nobody in ["job_x", "", "../job_a"] {
        assert!(runs.find(nobody, now()).is_err(), "{nobody}");
    }
}

#[test]
fn a_tail_passes_each_whole_line_once_across_a_crash_and_the_next_life() {
    let home = tempfile::tempdir().unwrap();
    let runs = Runs::new(home.path());
    let mut tail = runs.tail(&id("job_a"));
    assert!(tail.read().unwrap().is_empty(), "it is not there yet");
    let mut recorder = create(home.path(), "job_a");
    begin(&mut recorder, "notes");
    let seqs = |lines: Vec<JournalLine>| lines.iter().map(|line| line.seq).collect::<Vec<_>>();
    assert_eq!(seqs(tail.read().unwrap()), [1, 2]);
    assert!(tail.read().unwrap().is_empty());
    drop(recorder);

    // Half a line, then zeros and rubbish with a newline: what crashes leave.
    let journal = home.path().join("job_a/events.jsonl");
    let whole = std::fs::read(&journal).unwrap();
    for rubbish in [&b"{\"ts\":\"2026"[..], b"{\"ts\":\"2026\0\0\0\0", b"x\n\0\0y\n"] {
        std::fs::write(&journal, [&whole[..], rubbish].concat()).unwrap();
        assert!(tail.read().unwrap().is_empty());
    }

    let (folder, past) = RunFolder::resume(home.path(), &id("job_a"), "test").unwrap();
    let mut recorder = Recorder::open(folder, Some(&past)).unwrap();
    recorder.step_started("write", 1, &[], "k2");
    recorder.flush().unwrap();
    let lines = tail.read().unwrap();
    assert_eq!(lines[0].kind, Some(EventType::JournalRepaired));
    assert_eq!(lines[1].step.as_deref(), Some("write"));
    assert_eq!(seqs(lines), [3, 4]);
    assert!(!tail.is_at_end_of_job());
    recorder.job_succeeded(Duration::ZERO);
    recorder.flush().unwrap();
    assert_eq!(seqs(tail.read().unwrap()), [5]);
    assert!(tail.is_at_end_of_job());
    assert_eq!(seqs(runs.tail(&id("job_a")).after(3).read().unwrap()), [4, 5]);
}

#[test]
fn a_tail_takes_long_lines_and_many() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path(), "job_a");
    let names: Vec<String> = (0..30_000).map(|number| format!("step_with_a_long_name_{number}")).collect();
    let steps: Vec<&str> = names.iter().map(String::as_str).collect();
    recorder.job_started(&JobFacts {
        project: "p",
        provider: "local",
        task: None,
        spec_sha256: "5e",
        steps: &steps,
    });
    for step in &steps[..5_000] {
        recorder.cache_hit(step, "k");
    }
    recorder.flush().unwrap();
    let mut tail = Runs::new(home.path()).tail(&id("job_a"));
    let mut seen = 0;
    loop {
        let lines = tail.read().unwrap();
        if lines.is_empty() {
            break;
        }
        for line in lines {
            seen += 1;
            assert_eq!(line.seq, seen);
        }
    }
    assert_eq!(seen, 5_001);
}

#[test]
fn damage_is_told_with_its_line_and_shows_what_was_before_it() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path(), "job_a");
    begin(&mut recorder, "notes");
    recorder.job_succeeded(Duration::ZERO);
    recorder.flush().unwrap();
    drop(recorder);
    let journal = home.path().join("job_a/events.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("\"plan\",\"attempt\"", "\"PLAN\",\"attempt\"")).unwrap();
    let runs = Runs::new(home.path());
    let view = runs.view(&id("job_a")).unwrap();
    assert_eq!(view.damaged_line, Some(2));
    assert_eq!(view.manifest.journal.seq, 1);
    let mut tail = runs.tail(&id("job_a"));
    assert_eq!(tail.read().unwrap().len(), 1);
    let told = Failure::from(tail.read().unwrap_err());
    assert_eq!(told.exit, ExitCode::StateUnusable);
    assert!(told.message.starts_with("line 2 of "), "{told}");
}
