//! Output files written by several processes at once, and by processes that are killed. The processes are this
//! test program again, with a part to play.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test plays with processes of its own")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use workflow::{Digest, Durability, OutputFiles, WriteReason};
use workflow_spec::WriteMode;

/// Which part a process plays; none in the process that the test runner starts.
const PART: &str = "OUTPUT_FILES_PART";
const RUN: &str = "OUTPUT_FILES_RUN";

const WRITERS: usize = 4;
const WRITES: usize = 2000;
/// Every so many writes one appends; all others replace the file.
const APPENDS_EACH: usize = 20;

const STEPS: usize = 120;

fn files(run: &Path) -> OutputFiles {
    OutputFiles::open(run, "notes", Durability::Relaxed).unwrap()
}

fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// This test program again, running one test as a part of it.
fn play(test: &str, part: &str, run: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .env(RUN, run)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn run_folder() -> std::path::PathBuf {
    std::env::var_os(RUN).unwrap().into()
}

/// Says something to the process that started this one, apart from what the test runner says.
fn tell(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\ntold {text}").unwrap();
    out.flush().unwrap();
}

fn told(line: &str) -> Option<&str> {
    line.strip_prefix("told ")
}

/// A text that nobody else writes, which says itself whether it is whole.
fn text_of(writer: &str, number: usize) -> String {
    let body = format!("{writer}-{number}\n").repeat(1 + number % 40);
    format!("{}\n{body}", Digest::of(body.as_bytes()))
}

fn is_whole(text: &str) -> bool {
    text.split_once('\n').is_some_and(|(digest, body)| digest == Digest::of(body.as_bytes()).as_str())
}

fn write_much(writer: &str) {
    let files = files(&run_folder());
    for number in 0..WRITES {
        if number % APPENDS_EACH == 0 {
            let step = format!("{writer}-{number}");
            let line = format!("{step}\n");
            let written = files.write(&step, "log", WriteMode::Append, line.as_bytes()).unwrap();
            assert!(matches!(written.reason, WriteReason::Appended | WriteReason::Created));
        } else {
            let text = text_of(writer, number);
            let written = files.write(writer, "page", WriteMode::Overwrite, text.as_bytes()).unwrap();
            assert_eq!(written.sha256, Digest::of(text.as_bytes()));
        }
        let seen = files.read("page").unwrap().unwrap_or_default();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.is_empty() || is_whole(&seen), "a mixture of two texts: {seen:?}");
    }
    tell("done");
}

/// Four processes × 2,000 writes: whoever looks sees a text that somebody wrote, whole, and no append is lost.
#[test]
fn processes_that_write_the_same_files_never_mix_or_lose_anything() {
    if let Some(writer) = part() {
        return write_much(&writer);
    }
    let run = tempfile::tempdir().unwrap();
    let test = "processes_that_write_the_same_files_never_mix_or_lose_anything";
    let writers: Vec<Child> =
        (0..WRITERS).map(|writer| play(test, &writer.to_string(), run.path())).collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.lines().any(|line| told(line) == Some("done")), "{said}");
    }
    let files = files(run.path());
    let log = String::from_utf8(files.read("log").unwrap().unwrap()).unwrap();
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    log.lines().for_each(|line| *lines.entry(line).or_default() += 1);
    assert_eq!(lines.len(), WRITERS * WRITES / APPENDS_EACH, "an append is missing");
    assert!(lines.values().all(|count| *count == 1), "{lines:?}");
    assert!(is_whole(&String::from_utf8(files.read("page").unwrap().unwrap()).unwrap()));
    let left = std::fs::read_dir(run.path().join(".staged")).unwrap().count();
    assert_eq!(left, 2, "only the lock and the records of appends stay");
}

/// Appends step after step, and journals each one that is done.
fn append_further() {
    let run = run_folder();
    let files = files(&run);
    let mut journal = File::options().create(true).append(true).open(run.join("journal")).unwrap();
    for step in journalled(&run)..STEPS {
        tell("begun");
        files.write(&format!("step-{step}"), "log", WriteMode::Append, line_of(step).as_bytes()).unwrap();
        journal.write_all(b".").unwrap();
        journal.sync_all().unwrap();
    }
}

/// How many steps are known to be done.
fn journalled(run: &Path) -> usize {
    std::fs::metadata(run.join("journal")).map_or(0, |journal| journal.len() as usize)
}

/// Some equal to others: only the step tells them apart.
fn line_of(step: usize) -> String {
    format!("line {}\n", step % 3)
}

/// The last step may have been appended and not journalled, or neither: the next life cannot know but by the file.
#[test]
fn a_file_that_killed_processes_appended_to_has_every_line_once() {
    if part().is_some() {
        return append_further();
    }
    let run = tempfile::tempdir().unwrap();
    let test = "a_file_that_killed_processes_appended_to_has_every_line_once";
    let mut lives = 0;
    while journalled(run.path()) < STEPS {
        let mut child = play(test, "append", run.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut begun = lines.filter(|line| told(line) == Some("begun"));
        begun.next();
        let one_step = Instant::now();
        begun.next();
        // Killed within the second or third step, a little later from life to life.
        std::thread::park_timeout(one_step.elapsed().mul_f64((lives % 13) as f64 / 8.0));
        child.kill().unwrap();
        child.wait().unwrap();
        lives += 1;
    }
    assert!(lives > STEPS / 10, "only {lives} lives: too few kills to mean anything");
    let expected: String = (0..STEPS).map(line_of).collect();
    assert_eq!(String::from_utf8(files(run.path()).read("log").unwrap().unwrap()).unwrap(), expected);
}
