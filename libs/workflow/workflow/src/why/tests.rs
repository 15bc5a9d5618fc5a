//! The answer for runs as their recorder leaves them.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use workflow_spec::{FailureKind, StepOutput};

use super::*;
use crate::{Durability, Entry, JobFacts, Recorder, RunFolder, SkipReason, StepResult};

struct Place {
    folder: TempDir,
    runs: Runs,
    home: Store,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (runs, home) = (Runs::new(folder.path().join("runs")), Store::home(folder.path().join("cache")));
    Place { folder, runs, home }
}

fn request(prompt: &str) -> Value {
    json!({"v": 1, "kind": "llm", "messages": [{"role": "user", "content": prompt}]})
}

fn facts(project: &str) -> JobFacts<'_> {
    JobFacts { project, provider: "local", task: None, spec_sha256: "5e", steps: &["plan"] }
}

impl Place {
    /// A job's first life.
    fn begin(&self, name: &str, project: &str) -> Recorder {
        let id = JobId::new(name).unwrap();
        let folder = RunFolder::create(self.runs.root(), &id, project, "test").unwrap();
        let mut recorder = Recorder::open(folder, None).unwrap();
        recorder.job_started(&facts(project));
        recorder
    }

    fn resume(&self, name: &str) -> Recorder {
        let (folder, past) = RunFolder::resume(self.runs.root(), &JobId::new(name).unwrap(), "test").unwrap();
        let mut recorder = Recorder::open(folder, Some(&past)).unwrap();
        recorder.job_resumed(&facts("notes"));
        recorder
    }

    /// The step begins; its result is stored in the home.
    fn store(&self, document: &Value) -> KeyDocument {
        let document = KeyDocument::new(document);
        let entry = Entry::new(document.clone(), StepOutput::of_text("answer"), String::new());
        self.home.put(&entry, Durability::Relaxed).unwrap();
        document
    }

    /// A whole life in which the step ran and succeeded.
    fn ran(&self, mut recorder: Recorder, document: &Value) {
        let document = self.store(document);
        recorder.step_started("plan", 1, &[], document.key().as_str());
        recorder.cache_miss("plan", document.key().as_str(), "nobody has asked this");
        succeed(&mut recorder, &document);
        end(recorder);
    }

    fn why(&self, name: &str) -> Why {
        why(&self.runs, &self.home, &JobId::new(name).unwrap(), "plan", UnixMicros::now()).unwrap()
    }
}

fn succeed(recorder: &mut Recorder, document: &KeyDocument) {
    let key = document.key();
    let result =
        StepResult { duration: Duration::ZERO, provider_calls: 1, out: "0a", key: key.as_str(), files: &[] };
    recorder.step_succeeded("plan", 1, &result);
}

fn end(mut recorder: Recorder) {
    recorder.job_succeeded(Duration::from_secs(1));
    recorder.write_manifest().unwrap();
}

fn changed_paths(why: &Why) -> Vec<&str> {
    match &why.verdict {
        Verdict::Changed { changes } => changes.iter().map(|change| change.path.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_run_of_a_step_has_nothing_to_compare_with() {
    let place = place();
    place.ran(place.begin("job_other", "another project"), &request("a"));
    place.ran(place.begin("job_a", "notes"), &request("a"));
    assert_eq!(place.why("job_a").verdict, Verdict::FirstRun);
}

#[test]
fn an_edited_prompt_is_compared_with_this_jobs_earlier_life_before_other_jobs() {
    let place = place();
    place.ran(place.begin("job_old", "notes"), &request("very old"));
    place.ran(place.begin("job_a", "notes"), &request("old words"));
    assert_eq!(place.why("job_a").earlier.unwrap().job_id, "job_old");
    place.ran(place.resume("job_a"), &request("new words"));
    let why = place.why("job_a");
    assert_eq!(changed_paths(&why), ["messages[0].content"]);
    let earlier = why.earlier.unwrap();
    assert_eq!((earlier.job_id.as_str(), earlier.key), ("job_a", crate::key::key_of(&request("old words"))));
    assert_eq!(why.key, Some(crate::key::key_of(&request("new words"))));
}

#[test]
fn a_later_job_is_no_earlier_result() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("a"));
    place.ran(place.begin("job_b", "notes"), &request("b"));
    assert_eq!(place.why("job_a").verdict, Verdict::FirstRun);
    assert_eq!(changed_paths(&place.why("job_b")), ["messages[0].content"]);
}

#[test]
fn a_hit_a_joined_request_and_a_resumed_step_did_not_run() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("a"));
    let document = place.store(&request("a"));
    let key = document.key();
    let mut recorder = place.begin("job_b", "notes");
    recorder.step_started("plan", 1, &[], key.as_str());
    recorder.cache_hit("plan", key.as_str());
    succeed(&mut recorder, &document);
    end(recorder);
    assert_eq!(place.why("job_b").verdict, Verdict::Hit);
    let mut recorder = place.resume("job_b");
    recorder.step_skipped("plan", SkipReason::Resume, Some("0a"));
    end(recorder);
    let why = place.why("job_b");
    assert_eq!((why.verdict, why.key), (Verdict::Resumed, Some(key)));
    let mut recorder = place.begin("job_c", "notes");
    recorder.step_started("plan", 1, &[], key.as_str());
    recorder.cache_joined("plan", key.as_str());
    end(recorder);
    assert_eq!(place.why("job_c").verdict, Verdict::Joined);
}

#[test]
fn a_refused_entry_is_the_reason() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("a"));
    let document = KeyDocument::new(&request("a"));
    let mut recorder = place.begin("job_b", "notes");
    recorder.step_started("plan", 1, &[], document.key().as_str());
    recorder.cache_refused("plan", document.key().as_str(), "the entry is torn");
    recorder.cache_miss("plan", document.key().as_str(), "refused");
    succeed(&mut recorder, &document);
    end(recorder);
    assert_eq!(place.why("job_b").verdict, Verdict::Refused { reason: "the entry is torn".to_owned() });
}

#[test]
fn an_equal_request_that_was_made_again_says_why() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("a"));
    let run_again = |name: &str, document: &Value| {
        let document = place.store(document);
        let mut recorder = place.begin(name, "notes");
        recorder.step_started("plan", 1, &[], document.key().as_str());
        succeed(&mut recorder, &document);
        end(recorder);
        match place.why(name).verdict {
            Verdict::NotTaken { reason } => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(run_again("job_b", &request("a")).contains("--no-cache"));
    let program = json!({"v": 1, "kind": "run", "argv": ["date"]});
    place.ran(place.begin("job_c", "notes"), &program);
    assert!(run_again("job_d", &program).contains("`cache: true`"));
    place.ran(place.begin("job_e", "notes"), &program);
    let Verdict::NotTaken { reason } = place.why("job_e").verdict else { panic!("it is the same request") };
    assert!(reason.contains("not in the store any more"), "{reason}");
}

#[test]
fn a_map_runs_again_because_its_elements_are_looked_up_by_themselves() {
    let place = place();
    for name in ["job_a", "job_b"] {
        let document = place.store(&json!({"v": 1, "kind": "map"}));
        let mut recorder = place.begin(name, "notes");
        recorder.step_started("plan", 1, &[], document.key().as_str());
        recorder.step_started("plan[0]", 1, &[], "");
        succeed(&mut recorder, &document);
        end(recorder);
    }
    let Verdict::NotTaken { reason } = place.why("job_b").verdict else { panic!("it is the same list") };
    assert!(reason.contains("steps of its own"), "{reason}");
}

#[test]
fn of_a_job_that_has_not_begun_no_step_is_said_to_be_missing() {
    let place = place();
    let id = JobId::new("job_a").unwrap();
    drop(RunFolder::create(place.runs.root(), &id, "notes", "test").unwrap());
    let answer = why(&place.runs, &place.home, &id, "plan", UnixMicros::now());
    assert!(matches!(answer, Err(WhyError::NoTurn { .. })), "{answer:?}");
}

#[test]
fn a_step_that_failed_before_had_no_result() {
    let place = place();
    let mut recorder = place.begin("job_a", "notes");
    recorder.step_started("plan", 1, &[], crate::key::key_of(&request("a")).as_str());
    recorder.step_failed("plan", 1, FailureKind::Connect, "nobody there", Duration::ZERO);
    end(recorder);
    assert_eq!(place.why("job_a").verdict, Verdict::FirstRun);
    place.ran(place.resume("job_a"), &request("a"));
    let reason = "it failed before (connect: nobody there)".to_owned();
    assert_eq!(place.why("job_a").verdict, Verdict::NoResult { reason });
}

#[test]
fn the_request_of_a_step_that_failed_is_compared_too() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("old"));
    let document = KeyDocument::new(&request("new"));
    let mut recorder = place.begin("job_b", "notes");
    recorder.step_started("plan", 1, &[], document.key().as_str());
    recorder.step_failed("plan", 1, FailureKind::Connect, "nobody there", Duration::ZERO);
    end(recorder);
    assert!(matches!(place.why("job_b").verdict, Verdict::ChangedUnseen { .. }));
    let own = Store::run(place.folder.path().join("runs/job_b/.cache"));
    own.keep_document(&document).unwrap();
    assert_eq!(changed_paths(&place.why("job_b")), ["messages[0].content"]);
}

#[test]
fn a_step_that_is_not_in_the_job_is_told() {
    let place = place();
    place.ran(place.begin("job_a", "notes"), &request("a"));
    let unknown = why(&place.runs, &place.home, &JobId::new("job_a").unwrap(), "nope", UnixMicros::now());
    let failure = Failure::from(unknown.unwrap_err());
    assert!(failure.message.contains("nope") && failure.hint.is_some());
}
