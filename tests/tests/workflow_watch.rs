//! `show`, `tail` and `jobs`: runs looked at through the command line while they go on, after a crash, and over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::SOON;
use support::home::Home;
use testkit::wait_for;
use workflow::{
    EventType, FileEvent, FinishReason, JobFacts, JobId, ModelAnswered, Recorder, RunFolder, StepResult,
    TokenUse,
};
use workflow_spec::FailureKind;

fn id(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

fn begin(home: &Home, name: &str) -> Recorder {
    let folder = RunFolder::create(&home.path().join("runs"), &id(name), "notes", "llama-orch run").unwrap();
    let mut recorder = Recorder::open(folder, None).unwrap();
    recorder.job_started(&facts());
    recorder.flush().unwrap();
    recorder
}

fn facts() -> JobFacts<'static> {
    JobFacts {
        project: "notes",
        provider: "local",
        task: None,
        spec_sha256: "5e",
        steps: &["plan", "write", "review"],
    }
}

/// A first step that asks a model and writes a file.
fn plan(recorder: &mut Recorder) {
    recorder.step_started("plan", 1, &[], "key-of-plan");
    recorder.cache_miss("plan", "key-of-plan", "nothing is stored under it");
    recorder.llm_request("plan", 1, "local", "tiny", Some(12), "aa");
    recorder.llm_response(
        "plan",
        1,
        &ModelAnswered {
            provider: "local",
            duration: Duration::from_millis(1500),
            first_token: Some(Duration::from_millis(100)),
            usage: TokenUse { prompt: 12, completion: 30, cached: 0 },
            finish: Some(FinishReason::Stop),
        },
    );
    let file = FileEvent {
        path: "PLAN.md",
        sha256: "0123456789abcdef",
        size_bytes: 2048,
        wrote: true,
        reason: "created",
        media_type: "text/markdown",
    };
    recorder.file_written("plan", &file);
    let result = StepResult {
        duration: Duration::from_millis(1600),
        provider_calls: 1,
        out: "0a",
        key: "key-of-plan",
        files: &[("PLAN.md", "0123456789abcdef")],
    };
    recorder.step_succeeded("plan", 1, &result);
    recorder.flush().unwrap();
}

fn fail(recorder: &mut Recorder) {
    recorder.step_started("write[0]", 1, &["plan"], "key-of-write");
    recorder.step_retrying("write[0]", 1, FailureKind::Connect, "refused", Duration::from_secs(1));
    recorder.step_started("write[0]", 2, &["plan"], "key-of-write");
    recorder.step_failed("write[0]", 2, FailureKind::Connect, "refused\nagain", Duration::from_secs(2));
    recorder.step_failed("write", 1, FailureKind::Connect, "element 0 has failed", Duration::from_secs(2));
    recorder.job_failed("1 step has failed: write", Duration::from_secs(4));
    recorder.write_manifest().unwrap();
}

fn journal(home: &Home, name: &str) -> String {
    std::fs::read_to_string(home.path().join("runs").join(name).join("events.jsonl")).unwrap()
}

/// Every file of a folder with its content, and when it was changed.
fn state_of(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut state = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let changed = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            state.extend(state_of(&path));
            state.push((path, Vec::new(), changed));
        } else {
            let content = std::fs::read(&path).unwrap();
            state.push((path, content, changed));
        }
    }
    state.sort();
    state
}

#[test]
fn a_failed_run_is_shown_with_its_steps_what_they_took_and_what_to_do_next() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    plan(&mut recorder);
    fail(&mut recorder);
    drop(recorder);
    let shown = home.ok(&["show", "last", "--files"]).stdout;
    let shown = shown.replace(&home.path().display().to_string(), "<home>");
    insta::assert_snapshot!(shown);

    let document = home.json(&["show", "job_notes_1", "--json", "--events"]);
    assert_eq!(document["status"], "failed");
    assert_eq!(document["steps"]["plan"]["artifacts"], serde_json::json!(["outputs/notes/PLAN.md"]));
    assert_eq!(document["steps"]["write[0]"]["attempts"], 2);
    assert_eq!(document["failures"][0]["kind"], "connect");
    assert_eq!(document["pending_steps"], serde_json::json!(["review"]));
    assert_eq!(document["usage"]["total_tokens"], 42);
    assert_eq!(document["files"][0]["sha256"], "0123456789abcdef");
    assert_eq!(document["next"][0], "llama-orch run --resume job_notes_1");
    assert_eq!(document["events"].as_array().unwrap().len(), journal(&home, "job_notes_1").lines().count());
}

#[test]
fn a_run_that_waits_tells_how_to_decide() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    recorder.gate_waiting("review", "Publish?", &["yes", "no"]);
    recorder.job_waiting(&["review"], Duration::from_secs(1));
    recorder.flush().unwrap();
    drop(recorder);
    let shown = home.ok(&["show", "job_n"]).stdout;
    assert!(shown.contains("review: Publish? (yes, no)"), "{shown}");
    assert!(shown.contains("next: llama-orch decide job_notes_1 review yes\n"), "{shown}");
}

#[test]
fn jobs_are_listed_newest_first_and_an_interrupted_one_is_told() {
    let home = Home::fake();
    assert_eq!(home.json(&["jobs", "--json"]), serde_json::json!([]));
    let mut first = begin(&home, "job_notes_1");
    plan(&mut first);
    drop(first);
    let mut second = begin(&home, "job_notes_2");
    plan(&mut second);
    fail(&mut second);
    drop(second);
    let third = begin(&home, "job_notes_3");

    let rows = home.json(&["jobs", "--json"]);
    let told = |row: &Value| (row["job_id"].clone(), row["status"].clone(), row["steps_done"].clone());
    let told: Vec<_> = rows.as_array().unwrap().iter().map(told).collect();
    let row = |name: &str, status: &str, done: u32| (name.into(), status.into(), done.into());
    let wanted = [
        row("job_notes_3", "running", 0),
        row("job_notes_2", "failed", 1),
        row("job_notes_1", "interrupted", 1),
    ];
    assert_eq!(told, wanted);
    let listed = home.ok(&["jobs"]);
    assert!(listed.stdout.starts_with("JOB"), "{}", listed.stdout);
    assert!(listed.stderr.contains("llama-orch run --resume job_notes_1"), "{}", listed.stderr);
    drop(third);
}

#[test]
fn a_followed_run_is_told_line_by_line_across_a_crash_until_it_ends() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    let mut all = home.spawn(&["tail", "-f", "job_notes_1", "--json"], "all");
    let mut some = home.spawn(&["tail", "-f", "last", "--step", "write", "--level", "warn"], "some");
    wait_for("the first line", SOON, || all.output().lines().count() == 1);
    plan(&mut recorder);
    wait_for("more lines", SOON, || all.output().contains("step.succeeded"));
    drop(recorder);
    // The process dies within a line.
    let path = home.path().join("runs/job_notes_1/events.jsonl");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"{\"ts\":\"2026-01"].concat()).unwrap();
    assert!(!all.has_ended());

    let (folder, past) = RunFolder::resume(&home.path().join("runs"), &id("job_notes_1"), "test").unwrap();
    let mut recorder = Recorder::open(folder, Some(&past)).unwrap();
    recorder.job_resumed(&facts());
    fail(&mut recorder);
    wait_for("the end of the followers", SOON, || all.has_ended() && some.has_ended());
    assert!(all.exit_status().unwrap().success());
    assert_eq!(all.output(), journal(&home, "job_notes_1"), "each line once, as it stands in the journal");
    let types: Vec<String> =
        some.output().lines().map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect();
    assert_eq!(types, ["step.retrying", "step.failed", "step.failed"]);
}

#[test]
fn events_are_chosen_by_type_and_number() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    plan(&mut recorder);
    drop(recorder);
    let lines = |arguments: &[&str]| {
        let arguments = [&["tail", "job_notes_1", "--json"], arguments].concat();
        let text = home.ok(&arguments).stdout;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<workflow::Event>>()
    };
    let misses = lines(&["--type", "cache.miss"]);
    assert_eq!((misses.len(), misses[0].kind), (1, EventType::CacheMiss));
    let later: Vec<u64> = lines(&["--since", "4"]).iter().map(|event| event.seq).collect();
    assert_eq!(later, [5, 6, 7]);
    home.run(&["tail", "job_notes_1", "--type", "no.such"]).expect_exit(2);
}

#[test]
fn a_job_that_is_not_there_is_72_and_an_unclear_name_is_2() {
    let home = Home::fake();
    for arguments in [&["show", "last"][..], &["tail", "job_x"], &["show", "../../etc"]] {
        home.run(arguments).expect_exit(72);
    }
    assert!(!home.path().join("runs").exists());
    drop(begin(&home, "job_notes_1"));
    drop(begin(&home, "job_notes_2"));
    let unclear = home.run(&["show", "job_"]);
    unclear.expect_exit(2);
    assert!(unclear.stderr.contains("job_notes_1, job_notes_2"), "{}", unclear.stderr);
}

#[test]
fn a_damaged_journal_is_34_with_its_line_and_shows_what_was_before() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    plan(&mut recorder);
    drop(recorder);
    let path = home.path().join("runs/job_notes_1/events.jsonl");
    std::fs::write(&path, journal(&home, "job_notes_1").replacen("step.started", "step.Started", 1)).unwrap();
    let shown = home.run(&["show", "job_notes_1"]);
    shown.expect_exit(34);
    assert!(shown.stderr.contains("line 2 of"), "{}", shown.stderr);
    assert!(shown.stdout.contains("0 of 3 done"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("next:"), "nothing goes on from here: {}", shown.stdout);
    let told = home.run(&["tail", "job_notes_1"]);
    told.expect_exit(34);
    assert!(told.stdout.contains("job.started"), "{}", told.stdout);
    home.run(&["cancel", "job_notes_1"]).expect_exit(34);
}

#[test]
fn looking_changes_no_byte_of_a_home() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    plan(&mut recorder);
    drop(recorder);
    let path = home.path().join("runs/job_notes_1/events.jsonl");
    let torn = journal(&home, "job_notes_1") + "{\"ts\":\"2026";
    std::fs::write(&path, torn).unwrap();
    let before = state_of(home.path());
    for arguments in [&["show", "last", "--events", "--files"][..], &["tail", "last"], &["jobs"]] {
        home.ok(arguments);
    }
    assert_eq!(state_of(home.path()), before);
}

#[test]
fn the_queries_of_old_find_their_lines() {
    let home = Home::fake();
    let mut recorder = begin(&home, "job_notes_1");
    plan(&mut recorder);
    recorder.step_started("write", 1, &["plan"], "key-of-write");
    recorder.cache_hit("write", "key-of-write");
    recorder.step_succeeded(
        "write",
        1,
        &StepResult {
            duration: Duration::ZERO,
            provider_calls: 0,
            out: "0b",
            key: "key-of-write",
            files: &[],
        },
    );
    recorder.job_succeeded(Duration::from_secs(2));
    recorder.flush().unwrap();
    drop(recorder);
    let run = |script: &str| {
        let folder = home.path().join("runs/job_notes_1");
        #[expect(clippy::disallowed_methods, reason = "people ask a journal in a shell")]
        let mut command = std::process::Command::new("sh");
        command.current_dir(folder).args(["-c", script]);
        testkit::run(command).stdout.trim().to_owned()
    };
    assert_eq!(run("grep cache.hit events.jsonl | wc -l"), "1");
    assert_eq!(run("grep cache.miss events.jsonl | wc -l"), "1");
    let responses = run("grep '\"type\":\"llm.response\"' events.jsonl");
    assert_eq!(serde_json::from_str::<Value>(&responses).unwrap()["data"]["duration_s"], 1.5);
}
