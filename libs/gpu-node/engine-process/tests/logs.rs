//! Log files of living engines: bounded, whole, indexed, and readable while they grow.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine_process::{Stream, StreamSelection, adopt, start_mark, tail};
use orch_core::UnixMillis;
use support::{LIMIT, Scene, field, kill_hard, rotated, wait_gone, whole_log};
use testkit::{wait_for, wait_for_value};

const MEBIBYTE: u64 = 1024 * 1024;

/// All that lies there of one stream: the live file, the rotated ones, their indexes and whatever else.
fn bytes_of(log: &Path) -> u64 {
    let name = log.file_name().unwrap().to_str().unwrap();
    let entries = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let mine = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(name));
    mine.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}

/// The numbers of lines such as `stderr 0000000042 …… end`, each checked to be whole. Blanks may stand where half
/// a line was.
fn numbers(text: &str, width: usize) -> Vec<u64> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && line.ends_with(" end"));
    let numbers: Vec<u64> = lines
        .map(|line| {
            assert_eq!(line.len(), width, "torn: {line:?}");
            line.split(' ').nth(1).unwrap().parse().unwrap_or_else(|_| panic!("torn: {line:?}"))
        })
        .collect();
    let other = text.lines().filter(|line| line.contains("....") && !line.ends_with(" end"));
    assert_eq!(other.collect::<Vec<_>>(), [""; 0], "torn at their end");
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice");
    numbers
}

const FAKE_LINE: usize = "stderr 0000000000  end".len() + 80;

#[test]
fn a_flood_is_back_in_bounds_within_a_second_and_every_line_is_whole() {
    let scene = Scene::fake(&[("FAKE_FLOOD_BYTES", "50000000")]);
    let engine = scene.launch();
    let (stdout, stderr) = (&scene.spec.stdout_log, &scene.spec.stderr_log);
    let written = || field(engine.identity.pid, "io", "wchar").parse::<u64>().unwrap();
    wait_for("the end of the flood", LIMIT * 3, || written() > 2 * 50_000_000);
    wait_for("the bounds", Duration::from_secs(1), || {
        bytes_of(stdout) <= 4 * MEBIBYTE && bytes_of(stderr) <= 4 * MEBIBYTE
    });
    for log in [stdout, stderr] {
        let under_way = || PathBuf::from(format!("{}.rotating.1", log.display())).exists();
        wait_for("the last rotation", LIMIT, || !under_way() && bytes_of(log) <= 4 * MEBIBYTE);
        let kept = numbers(&whole_log(log), FAKE_LINE);
        assert!(kept.len() > 15_000, "the room is used: {} lines", kept.len());
        assert!((1..=3).all(|number| rotated(log, number).exists()));
        assert!(!rotated(log, 4).exists());
    }
    assert!(start_mark(engine.shim_pid).is_some());
}

/// Writes blocks that end anywhere in a line, as a C program does whose stdout is a file.
const BLOCK_WRITER: &str = r#"
import os, sys, time
buffer, number, begin = b"", 0, time.time()
while time.time() < begin + float(os.environ["SECONDS"]):
    while len(buffer) < 4096:
        buffer += b"stdout %010d %s end\n" % (number, b"." * (number % 90))
        number += 1
    os.write(1, buffer[:4096])
    buffer = buffer[4096:]
    time.sleep(float(os.environ["PAUSE"]))
os.write(1, buffer)
sys.stderr.write("done %d\n" % number)
time.sleep(1000)
"#;

fn block_writer(seconds: &str, pause: &str) -> Scene {
    let mut scene = Scene::script("/usr/bin/python3", BLOCK_WRITER);
    scene.spec.env.push(("SECONDS".into(), seconds.into()));
    scene.spec.env.push(("PAUSE".into(), pause.into()));
    scene.spec.log_max_bytes = 200_000;
    scene
}

/// Lines of [`BLOCK_WRITER`], whole or not at all.
fn check_blocks(text: &str) -> Vec<u64> {
    let numbers: Vec<u64> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let number: u64 = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
            let dots = ".".repeat((number % 90) as usize);
            assert_eq!(line, format!("stdout {number:010} {dots} end"), "torn");
            number
        })
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    numbers
}

/// The writer has ended, and if the last cut left half a line at the head, it is blanked out.
fn is_at_rest(log: &Path) -> bool {
    let text = std::fs::read_to_string(log).unwrap();
    let first = text.lines().next().unwrap_or_default();
    text.trim().is_empty()
        || text.ends_with(" end\n") && (first.starts_with("stdout ") || first.trim().is_empty())
}

#[test]
fn a_writer_of_unaligned_blocks_leaves_no_torn_line_behind() {
    for pause in ["0", "0.0005", "0.003"] {
        let scene = block_writer("2", pause);
        scene.launch();
        let done =
            || std::fs::read_to_string(&scene.spec.stderr_log).is_ok_and(|text| text.starts_with("done"));
        wait_for("the writer", LIMIT, done);
        let log = &scene.spec.stdout_log;
        wait_for("the bounds", Duration::from_secs(1), || bytes_of(log) <= 4 * 200_000);
        let quiet = || is_at_rest(log) && bytes_of(log) <= 4 * 200_000;
        wait_for("a quiet log", LIMIT, quiet);
        let kept = check_blocks(&whole_log(log));
        for number in 1..=3 {
            let piece = std::fs::read_to_string(rotated(log, number)).unwrap();
            let whole = piece.trim_start_matches('\n').starts_with("stdout ") && piece.ends_with(" end\n");
            assert!(
                whole,
                "{number}: {:?}…{:?}",
                piece.get(..200),
                piece.get(piece.len().saturating_sub(200)..)
            );
        }
        assert!(kept.len() > 1000, "{} lines at pause {pause}", kept.len());
    }
}

/// Says when it writes each line.
const CLOCK: &str = r#"
import os, sys, time, random
for number in range(400):
    stream = random.choice((1, 2))
    os.write(stream, b"%d\n" % (time.time() * 1000))
    time.sleep(random.choice((0.001, 0.005, 0.02)))
os.write(1, b"done\n")
time.sleep(1000)
"#;

#[test]
fn the_index_tells_when_each_line_was_written() {
    let mut scene = Scene::script("/usr/bin/python3", CLOCK);
    scene.spec.log_max_bytes = 1500;
    scene.spec.log_rotation = 9;
    scene.launch();
    let files = scene.spec.log_files();
    wait_for("the clock to stop", LIMIT, || whole_log(&files.stdout).contains("done"));
    let lines = wait_for_value("an index of everything", LIMIT, || {
        let lines = tail(&files, StreamSelection::Both, 1000, None).unwrap();
        lines.iter().all(|line| line.at.is_some()).then_some(lines)
    });
    assert!(lines.len() > 350, "{}", lines.len());
    assert!(lines.iter().any(|line| line.stream == Stream::Stderr));
    let mut delays: Vec<i64> =
        lines.iter().filter_map(|line| Some(line.at?.0 - line.text.parse::<i64>().ok()?)).collect();
    delays.sort_unstable();
    assert!(delays[0] >= 0, "no line is seen before it was written: {delays:?}");
    // A loaded machine may be late now and then, but not by rule.
    assert!(delays[delays.len() * 9 / 10] <= 200, "{delays:?}");

    let middle = UnixMillis(lines[lines.len() / 2].at.unwrap().0);
    let since = tail(&files, StreamSelection::Both, 1000, Some(middle)).unwrap();
    let expected: Vec<_> = lines.iter().filter(|line| line.at >= Some(middle)).collect();
    assert_eq!(since.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn an_adopted_engine_has_its_logs_kept_in_bounds_too() {
    let mut scene = block_writer("4", "0.001");
    scene.spec.log_max_bytes = 100_000;
    let engine = scene.launch();
    kill_hard(engine.shim_pid);
    wait_gone("the shim", engine.shim_pid);
    let log = scene.spec.stdout_log.clone();
    wait_for("growth without a shim", LIMIT, || log.metadata().is_ok_and(|data| data.len() > 300_000));
    adopt(&support::shim(), &scene.spec, &engine.identity).unwrap();
    wait_for("the bounds", Duration::from_secs(1), || bytes_of(&log) <= 4 * 100_000);
    let done = || std::fs::read_to_string(&scene.spec.stderr_log).is_ok_and(|text| text.starts_with("done"));
    wait_for("the writer", LIMIT, done);
    let quiet = || is_at_rest(&log) && bytes_of(&log) <= 4 * 100_000;
    wait_for("a quiet log", LIMIT, quiet);
    check_blocks(&whole_log(&log));
}

#[test]
fn a_next_engine_begins_on_a_line_of_its_own_and_last_words_are_its_own() {
    let scene = Scene::script("/bin/sh", "echo \"$0 is here\" >&2; printf 'no line end' >&2; exit 4\n");
    let engine = scene.launch();
    assert_eq!(scene.exit_record(&engine).last_stderr.len(), 2);
    wait_gone("the shim", engine.shim_pid);
    let again = scene.launch();
    let record = scene.exit_record(&again);
    assert_eq!(record.code, Some(4));
    assert_eq!(record.last_stderr.len(), 2, "{:?}", record.last_stderr);
    assert!(record.last_stderr[0].ends_with("is here"));
    let text = std::fs::read_to_string(&scene.spec.stderr_log).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_log_that_was_removed_stays_bounded() {
    let mut scene = Scene::fake(&[("FAKE_LOG_EVERY_MS", "1")]);
    scene.spec.log_max_bytes = 4000;
    let engine = scene.launch();
    let log = scene.spec.stdout_log.clone();
    wait_for("a first rotation", LIMIT, || rotated(&log, 1).exists());
    std::fs::remove_file(&log).unwrap();
    wait_for("another rotation", LIMIT, || rotated(&log, 3).exists());
    let open = std::fs::metadata(format!("/proc/{}/fd/1", engine.identity.pid)).unwrap();
    assert!(open.len() <= 8000, "{}", open.len());
}

#[test]
fn rotated_files_over_their_age_go_while_the_engine_runs() {
    let scene = Scene::fake(&[]);
    let log = &scene.spec.stderr_log;
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    for (number, days) in [(1, 1), (2, 8)] {
        let file = std::fs::File::create(rotated(log, number)).unwrap();
        let age = Duration::from_hours(24 * days);
        file.set_modified(file.metadata().unwrap().modified().unwrap() - age).unwrap();
    }
    scene.launch_ready();
    wait_for("the old file to go", LIMIT, || !rotated(log, 2).exists());
    assert!(rotated(log, 1).exists(), "it is younger than seven days");
}

/// File systems in memory cannot take blocks out of a file: what was copied is cut off there.
#[test]
fn where_blocks_cannot_be_taken_out_of_a_file_rotation_copies_and_cuts() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        eprintln!("SKIPPED: there is no file system in memory here");
        return;
    }
    let folder = tempfile::Builder::new().prefix("llama-orch-logs-").tempdir_in(memory).unwrap();
    let mut scene = Scene::fake(&[("FAKE_LOG_EVERY_MS", "1")]);
    scene.spec.stdout_log = folder.path().join("stdout.log");
    scene.spec.stderr_log = folder.path().join("stderr.log");
    scene.spec.log_max_bytes = 4000;
    scene.spec.log_rotation = 5;
    scene.launch();
    let log = &scene.spec.stdout_log;
    wait_for("all files that are kept", LIMIT, || rotated(log, 5).exists());
    assert!(!rotated(log, 6).exists());
    wait_for("the bounds", LIMIT, || bytes_of(log) <= 6 * 4000 + 2000);
    for number in 1..=5 {
        // A rotation may rename it at this moment.
        let Ok(text) = std::fs::read_to_string(rotated(log, number)) else { continue };
        assert!(text.ends_with('\n'), "{number} ends in the middle of a line");
        let torn = text.lines().filter(|line| !line.trim().is_empty() && !is_tick(line));
        assert_eq!(torn.collect::<Vec<_>>(), [""; 0], "torn in {number}");
    }
}

/// A whole line of the fake engine: of its start, or a tick.
fn is_tick(line: &str) -> bool {
    let Some(number) = line.strip_prefix("stdout tick ") else { return !line.contains("tick") };
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}
