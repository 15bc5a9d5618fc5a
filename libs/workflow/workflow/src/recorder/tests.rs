//! The journal as a whole: written, cut, damaged, read again.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use workflow_spec::FailureKind;

use super::*;
use crate::past::PastFile;
use crate::run_folder::{JobId, RunFolderError};
use crate::{EventType, FinishReason, JobStatus, StepStatus, TokenUse};

fn id() -> JobId {
    JobId::new("job_test").unwrap()
}

fn create(home: &Path) -> Recorder {
    Recorder::open(RunFolder::create(home, &id(), "notes", "test").unwrap(), None).unwrap()
}

fn facts() -> JobFacts<'static> {
    JobFacts {
        project: "notes",
        provider: "local",
        task: Some("Write \"it\"."),
        spec_sha256: "5e",
        steps: &["plan", "write", "ask"],
    }
}

fn succeeded(key: &'static str) -> StepResult<'static> {
    StepResult {
        duration: Duration::from_micros(1_234_567),
        provider_calls: 1,
        out: "0a",
        key,
        files: &[("a/b.md", "f1")],
    }
}

/// A run with some of everything, cut short.
fn write_half_a_run(recorder: &mut Recorder) {
    recorder.job_started(&facts());
    recorder.step_started("plan", 1, &[], "k-plan");
    recorder.cache_miss("plan", "k-plan", "the prompt is new");
    recorder.llm_request("plan", 1, "local", "tiny", Some(12), "aa");
    let answered = ModelAnswered {
        provider: "local",
        duration: Duration::from_millis(20),
        first_token: Some(Duration::from_millis(3)),
        usage: TokenUse { prompt: 12, completion: 30, cached: 4 },
        finish: Some(FinishReason::Stop),
    };
    recorder.llm_response("plan", 1, &answered);
    recorder.cache_stored("plan", "k-plan");
    let file = FileEvent {
        path: "a/b.md",
        sha256: "f1",
        size_bytes: 7,
        wrote: true,
        reason: "created",
        media_type: "text/markdown",
    };
    recorder.file_written("plan", &file);
    recorder.step_succeeded("plan", 1, &succeeded("k-plan"));
    recorder.step_started("write", 1, &["plan"], "k-write");
    recorder.step_retrying(
        "write",
        1,
        FailureKind::Connect,
        "refused\nby the \u{1F980}",
        Duration::from_secs(1),
    );
    recorder.step_started("write", 2, &["plan"], "k-write");
    recorder.gate_waiting("ask", "Good?", &["approve", "reject"]);
    recorder.gate_decided("ask", "approve", None);
}

fn journal(home: &Path) -> std::path::PathBuf {
    home.join("job_test/events.jsonl")
}

fn resume(home: &Path) -> Result<(RunFolder, Past), RunFolderError> {
    RunFolder::resume(home, &id(), "test")
}

#[test]
fn a_resumed_job_knows_what_was_done_and_what_nobody_saw_end() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    write_half_a_run(&mut recorder);
    recorder.flush().unwrap();
    drop(recorder);

    let (_folder, past) = resume(home.path()).unwrap();
    assert_eq!(past.lives(), 1);
    assert_eq!(past.status(), Some(JobStatus::Running));
    assert_eq!(past.usage(), TokenUse { prompt: 12, completion: 30, cached: 4 });
    let plan = &past.succeeded["k-plan"];
    assert_eq!((plan.step.as_str(), plan.out.as_str()), ("plan", "0a"));
    assert_eq!(plan.files, [PastFile { path: "a/b.md".into(), sha256: "f1".into(), size_bytes: Some(7) }]);
    let unfinished: Vec<_> = past.unfinished().map(|(key, tried)| (key, tried.attempts)).collect();
    assert_eq!(unfinished, [("k-write", 2)]);
    assert_eq!(past.decided["ask"].choice, "approve");
    assert_eq!(past.manifest.step("write").unwrap().attempts, 2);
}

#[test]
fn an_existing_job_a_missing_one_and_a_held_one_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(resume(home.path()), Err(RunFolderError::NotFound { .. })));
    let first = RunFolder::create(home.path(), &id(), "notes", "llama-orch run").unwrap();
    let error = RunFolder::create(home.path(), &id(), "notes", "x").unwrap_err();
    assert!(matches!(error, RunFolderError::AlreadyExists { .. }));
    let failure = orch_core::Failure::from(resume(home.path()).unwrap_err());
    assert_eq!(failure.exit, orch_core::ExitCode::LockNotAcquired);
    let holder = format!("pid {} (llama-orch run, since 2", std::process::id());
    assert!(failure.message.contains(&holder), "{failure}");
    drop(first);
    assert_eq!(resume(home.path()).unwrap().1.lives(), 0, "it never began");
    assert!(home.path().join("job_test/lock").exists(), "lock files are never unlinked");
}

#[cfg(unix)]
#[test]
fn a_run_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(&home.path().join("runs"));
    recorder.write_manifest().unwrap();
    let run = home.path().join("runs/job_test");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for folder in ["", "inputs", "outputs/notes", "logs", "artifacts", "control", ".cache"] {
        assert_eq!(mode(&run.join(folder)), 0o700, "{folder}");
    }
    for file in ["lock", "events.jsonl", "manifest.json"] {
        assert_eq!(mode(&run.join(file)), 0o600, "{file}");
    }
}

/// The bytes of a journal, and where each line ends.
fn written() -> (Vec<u8>, Vec<usize>) {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    write_half_a_run(&mut recorder);
    recorder.flush().unwrap();
    let bytes = std::fs::read(journal(home.path())).unwrap();
    let ends = memchr::memchr_iter(b'\n', &bytes).map(|at| at + 1).collect();
    (bytes, ends)
}

/// What a scan finds, and what resuming would leave.
fn scanned(bytes: &[u8]) -> Result<(u64, u64, bool), u64> {
    use crate::journal::scan::{ScanError, scan};
    match scan(bytes, |_, _| {}) {
        Ok(part) => {
            assert_eq!(part.bytes + part.torn, bytes.len() as u64);
            Ok((part.seq, part.torn, part.lacks_newline))
        }
        Err(ScanError::Damaged { line }) => Err(line),
        Err(ScanError::Io(error)) => panic!("{error}"),
    }
}

#[test]
fn a_journal_cut_at_any_byte_keeps_its_whole_lines() {
    let (bytes, ends) = written();
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        // A line that lacks nothing but its newline counts.
        let lacks_newline = ends.contains(&(cut + 1));
        let seq = whole + usize::from(lacks_newline);
        let begin = if whole == 0 { 0 } else { ends[whole - 1] };
        let torn = if lacks_newline { 0 } else { cut - begin };
        assert_eq!(scanned(&bytes[..cut]), Ok((seq as u64, torn as u64, lacks_newline)), "cut at {cut}");
    }
}

#[test]
fn zeros_at_the_end_are_a_torn_end() {
    let (bytes, ends) = written();
    for cut in (0..=bytes.len()).step_by(7).chain(ends.iter().map(|end| end - 1)).chain(ends.iter().copied())
    {
        let mut zeroed = bytes[..cut].to_vec();
        zeroed.resize(cut + 4096, 0);
        let (seq, _, lacks_newline) = scanned(&bytes[..cut]).unwrap();
        let (zeroed_seq, torn, zeroed_lacks) = scanned(&zeroed).unwrap();
        assert_eq!((zeroed_seq, zeroed_lacks), (seq, lacks_newline), "cut at {cut}");
        assert!(torn >= 4096);
    }
}

#[test]
fn a_changed_bit_inside_is_refused_with_its_line() {
    let (bytes, ends) = written();
    let last_begins = ends[ends.len() - 2];
    let mut damaged = bytes.clone();
    for at in 0..last_begins {
        let line = 1 + ends.iter().filter(|end| **end <= at).count() as u64;
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert_eq!(scanned(&damaged), Err(line), "byte {at}, bit {bit}");
            damaged[at] ^= 1 << bit;
        }
    }
}

#[test]
fn lines_that_an_editor_has_touched_are_no_torn_end() {
    let (bytes, ends) = written();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(scanned(text.replace('\n', "\r\n").as_bytes()), Err(1));
    let (before, last) = text.split_at(ends[ends.len() - 2]);
    let edited = [before, &last.replacen("INFO", "WARN", 1)].concat();
    assert_ne!(edited, text);
    assert_eq!(scanned(edited.as_bytes()), Err(ends.len() as u64));
}

#[test]
fn a_missing_or_doubled_line_is_refused() {
    let (bytes, ends) = written();
    let without_third = [&bytes[..ends[1]], &bytes[ends[2]..]].concat();
    assert_eq!(scanned(&without_third), Err(3));
    let third_twice = [&bytes[..ends[2]], &bytes[ends[1]..]].concat();
    assert_eq!(scanned(&third_twice), Err(4));
}

#[test]
fn a_torn_end_is_cut_off_told_and_written_behind() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    write_half_a_run(&mut recorder);
    recorder.flush().unwrap();
    drop(recorder);
    let whole = std::fs::read(journal(home.path())).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(b"{\"ts\":\"2026-");
    std::fs::write(journal(home.path()), &torn).unwrap();

    let (folder, past) = resume(home.path()).unwrap();
    let mut recorder = Recorder::open(folder, Some(&past)).unwrap();
    recorder.job_resumed(&facts());
    recorder.flush().unwrap();
    drop(recorder);
    let text = std::fs::read_to_string(journal(home.path())).unwrap();
    let new: Vec<serde_json::Value> =
        text[whole.len()..].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((new[0]["type"].as_str(), &new[0]["data"]["bytes"]), (Some("journal.repaired"), &12.into()));
    assert_eq!(new[1]["type"], "job.resumed");
    assert_eq!(resume(home.path()).unwrap().1.lives(), 2);
}

#[test]
fn a_journal_that_was_changed_later_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (mut bytes, ends) = written();
    drop(create(home.path()));
    bytes[ends[3] + 90] ^= 4;
    std::fs::write(journal(home.path()), &bytes).unwrap();
    let failure = orch_core::Failure::from(resume(home.path()).unwrap_err());
    assert_eq!(failure.exit, orch_core::ExitCode::StateUnusable);
    assert!(failure.message.starts_with("line 5 of "), "{failure}");
    assert_eq!(std::fs::read(journal(home.path())).unwrap(), bytes);
}

static NEXT: AtomicI64 = AtomicI64::new(1_700_000_000_000_000);

fn clock() -> UnixMicros {
    UnixMicros(NEXT.fetch_add(1_371, Ordering::Relaxed))
}

/// One event of any kind, chosen by numbers.
fn record_any(recorder: &mut Recorder, choice: u8, step: usize, number: u64) {
    let step = ["plan", "write", "ask", "write[0]", "say \"hi\""][step];
    let key = ["k1", "k2", "k3"][(number % 3) as usize];
    let duration = Duration::from_micros(number);
    let attempt = 1 + (number % 3) as u32;
    match choice {
        0 => recorder.job_resumed(&facts()),
        1 => recorder.job_waiting(&[step], duration),
        2 => recorder.job_succeeded(duration),
        3 => recorder.job_failed("no\tluck", duration),
        4 => recorder.job_cancelled("asked", duration),
        5 => recorder.step_started(step, attempt, &["plan"], key),
        6 => recorder.step_succeeded(step, attempt, &StepResult { duration, ..succeeded(key) }),
        7 => recorder.step_failed(step, attempt, FailureKind::Schema, "not \"it\"", duration),
        8 => recorder.step_retrying(step, attempt, FailureKind::RateLimit, "later", duration),
        9 => recorder.step_cancelled(step, attempt, "asked", duration),
        10 => recorder.step_skipped(step, SkipReason::Resume, Some("0a")),
        11 => recorder.step_skipped(step, SkipReason::Condition, None),
        12 => recorder.step_skipped(step, SkipReason::UpstreamFailed, None),
        13 => recorder.llm_request(step, attempt, "local", "tiny", None, key),
        14 => {
            let usage = TokenUse { prompt: number, completion: 3, cached: number % 2 };
            let finish = number.is_multiple_of(2).then_some(FinishReason::Length);
            let answered = ModelAnswered { provider: "local", duration, first_token: None, usage, finish };
            recorder.llm_response(step, attempt, &answered);
        }
        15 => {
            let path = ["x", "y/z"][(number % 2) as usize];
            let media_type = "text/plain";
            let file = FileEvent {
                path,
                sha256: key,
                size_bytes: number,
                wrote: true,
                reason: "created",
                media_type,
            };
            recorder.file_written(step, &file);
        }
        16 => recorder.file_refused(step, "../x", "leads out"),
        17 => recorder.cache_hit(step, key),
        18 => recorder.cache_miss(step, key, "new"),
        19 => recorder.cache_stored(step, key),
        20 => recorder.cache_joined(step, key),
        21 => recorder.cache_refused(step, key, "torn"),
        22 => recorder.gate_waiting(step, "Good?", &["approve"]),
        23 => recorder.gate_decided(step, "approve", Some("me")),
        24 => recorder.map_expanded(step, 3),
        25 => recorder.loop_iterated(step, attempt),
        _ => recorder.budget_exceeded(1, number),
    }
}

const KINDS: u8 = 27;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_manifest_can_be_made_again_from_the_journal_alone(
        events in prop::collection::vec((0..KINDS, 0usize..5, 0u64..90_000_000), 0..80),
    ) {
        let home = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(home.path(), &id(), "notes", "test").unwrap();
        let mut recorder = Recorder::with_clock(folder, None, clock).unwrap();
        recorder.job_started(&facts());
        for (choice, step, number) in events {
            record_any(&mut recorder, choice, step, number);
        }
        recorder.write_manifest().unwrap();
        let known = recorder.manifest().clone();
        drop(recorder);
        let (folder, past) = resume(home.path()).unwrap();
        prop_assert_eq!(&past.manifest, &known);
        let text = std::fs::read(folder.manifest()).unwrap();
        prop_assert_eq!(text, past.manifest.to_json());
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_journal_is_whole_torn_or_refused(
        cut in 0usize..9_000,
        rubbish in prop::collection::vec(any::<u8>(), 0..400),
        places in prop::collection::vec((0usize..9_000, any::<u8>()), 0..3),
    ) {
        let (mut bytes, ends) = written();
        for (at, byte) in places {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        bytes.extend_from_slice(&rubbish);
        if let Ok((seq, torn, _)) = scanned(&bytes) {
            let whole = bytes.len() - usize::try_from(torn).unwrap();
            prop_assert!(whole == 0 || whole + 1 >= ends[usize::try_from(seq).unwrap() - 1]);
        }
    }
}

#[test]
fn what_people_grep_for_is_found_in_the_lines_of_that_type_alone() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    recorder.job_started(&facts());
    for choice in 0..KINDS {
        record_any(&mut recorder, choice, 0, 4);
    }
    recorder.flush().unwrap();
    let text = std::fs::read_to_string(journal(home.path())).unwrap();
    for kind in EventType::ALL {
        let word = kind.word();
        // As grep takes it: the dot is any character.
        let (before, after) = word.split_once('.').unwrap();
        let hits = |line: &&str| {
            line.match_indices(before).any(|(at, _)| {
                let rest = line[at + before.len()..].chars().skip(1).collect::<String>();
                rest.starts_with(after)
            })
        };
        let typed = |line: &&str| line.contains(&format!("\"type\":\"{word}\""));
        assert_eq!(text.lines().filter(hits).count(), text.lines().filter(typed).count(), "{word}");
    }
    let types = |line: &str| serde_json::from_str::<crate::Event>(line).unwrap().kind;
    let seen: std::collections::BTreeSet<_> = text.lines().map(types).collect();
    let unseen: Vec<_> = EventType::ALL.iter().filter(|kind| !seen.contains(kind)).collect();
    // A repair is told by the recorder itself; a lease is lost where several machines share a journal, and read here.
    let others = [&EventType::JournalRepaired, &EventType::LeaseLost];
    assert_eq!(unseen, others, "each event has its method");
}

#[test]
fn a_step_that_was_done_before_keeps_what_is_known_of_it() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    write_half_a_run(&mut recorder);
    recorder.job_resumed(&facts());
    assert_eq!(recorder.manifest().step("plan").unwrap().status, StepStatus::Pending);
    recorder.step_skipped("plan", SkipReason::Resume, Some("0a"));
    let plan = recorder.manifest().step("plan").unwrap();
    assert_eq!((plan.status, plan.tokens, plan.attempts), (StepStatus::Succeeded, 42, 1));
    assert_eq!(plan.files, ["a/b.md"]);
    assert_eq!(recorder.manifest().progress(), (1, 3));
}

#[test]
fn text_without_end_does_not_make_a_line_without_end() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    recorder.job_started(&facts());
    recorder.step_failed("plan", 1, FailureKind::Tool, &"\u{1F980}\n".repeat(1_000_000), Duration::ZERO);
    assert!(recorder.waiting().len() < 64 * 1024);
    recorder.flush().unwrap();
    drop(recorder);
    assert_eq!(resume(home.path()).unwrap().1.lives(), 1);
}

#[test]
fn a_journal_with_lines_is_not_begun_again() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    recorder.job_started(&facts());
    recorder.flush().unwrap();
    drop(recorder);
    let (folder, _) = resume(home.path()).unwrap();
    assert!(Recorder::open(folder, None).is_err());
    assert_eq!(resume(home.path()).unwrap().1.lives(), 1);
}

#[test]
fn the_manifest_is_written_when_its_time_has_come_and_something_is_new() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = create(home.path());
    let path = recorder.folder().manifest();
    recorder.job_started(&facts());
    let now = Instant::now();
    recorder.write_manifest_if_due(now).unwrap();
    let first = std::fs::read(&path).unwrap();
    recorder.step_started("plan", 1, &[], "k");
    recorder.write_manifest_if_due(now).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "not so soon");
    // Whoever waits is told how long, for nothing more may happen.
    let later = recorder.manifest_due().unwrap();
    assert!(later > now);
    recorder.write_manifest_if_due(later).unwrap();
    let second = std::fs::read(&path).unwrap();
    assert_ne!(second, first);
    assert_eq!(recorder.waiting(), b"", "the journal goes first");
    assert_eq!(recorder.manifest_due(), None);
    std::fs::remove_file(&path).unwrap();
    recorder.write_manifest_if_due(later + Duration::from_secs(3600)).unwrap();
    assert!(!path.exists(), "nothing is new");
}
