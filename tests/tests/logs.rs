//! Logs stay small, whole, in order, and can be followed through everything.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::SOON;
use support::home::Home;
use support::processes::{kill_hard, signal};
use testkit::{http, wait_for};

const MIB: u64 = 1024 * 1024;
const FLOOD: u64 = 50 * MIB;
/// Lines of one write of the flood: what comes in the very moment of a cut may be lost on some file systems.
const MOST_LOST: u64 = 700;

fn small_logs() -> serde_json::Value {
    json!({"logs": {"max_size_mb": 1, "rotation": 3}, "restart_policy": {"initial_delay": 0.1}})
}

/// Whether a copy has not got its name yet.
fn is_rotating(home: &Path, stream: &str) -> bool {
    files_of(home, stream).iter().any(|path| path.to_string_lossy().contains(".rotating."))
}

/// Turns knobs of the instance's engine while it runs.
fn turn(port: u16, knobs: &serde_json::Value) {
    let reply = http::post_json(&format!("127.0.0.1:{port}"), "/fake/faults", knobs).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// The files of one stream: the living one and the rotated ones.
fn files_of(home: &Path, stream: &str) -> Vec<std::path::PathBuf> {
    let folder = home.join("logs/a");
    let belongs = |name: &str| name == format!("{stream}.log") || name.starts_with(&format!("{stream}.log."));
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let names = entries.filter(|entry| belongs(&entry.file_name().to_string_lossy()));
    names.map(|entry| entry.path()).filter(|path| path.extension().is_none_or(|it| it != "index")).collect()
}

fn bytes_of(home: &Path, stream: &str) -> u64 {
    files_of(home, stream).iter().map(|path| path.metadata().map_or(0, |about| about.len())).sum()
}

#[test]
fn a_flood_keeps_to_its_bound_and_the_newest_lines() {
    let home = Home::fake();
    let port = home.instance("a", &small_logs());
    home.ok(&["up", "a"]);
    turn(port, &json!({"FAKE_FLOOD_BYTES": FLOOD.to_string()}));
    let over = |text: &str| text.contains("the flood is over");
    wait_for("the end of the flood", Duration::from_secs(60), || {
        // The end of the living file: the whole of it may be much larger at this moment.
        over(&home.ok(&["logs", "a", "-n", "3", "--stream", "stderr"]).stdout)
    });
    wait_for("both streams to be back in their bound", Duration::from_secs(1), || {
        ["stdout", "stderr"].iter().all(|stream| {
            let live = home.path().join(format!("logs/a/{stream}.log")).metadata().unwrap().len();
            live < MIB && bytes_of(home.path(), stream) <= 4 * MIB && !is_rotating(home.path(), stream)
        })
    });
    for stream in ["stdout", "stderr"] {
        let bytes = bytes_of(home.path(), stream);
        assert!(bytes > MIB, "{stream} has only {bytes} bytes left");
        assert!(home.path().join(format!("logs/a/{stream}.log.1")).exists());
        assert!(!home.path().join(format!("logs/a/{stream}.log.4")).exists());
    }
    assert_eq!(home.ps("a")["status"], "running", "the engine never noticed");

    let last_line = FLOOD / "stdout 0000000000 ................................................................................ end\n".len() as u64;
    // A look in the middle of a rotation misses what has just been copied.
    wait_for("the newest lines", Duration::from_secs(1), || {
        let tail = home.ok(&["logs", "a", "-n", "1000", "--stream", "stdout"]).stdout;
        let numbers: Vec<u64> = tail.lines().map(|line| number_of(line, "stdout")).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "lines of the tail are in disorder");
        numbers.len() == 1000 && last_line <= numbers[999] + MOST_LOST
    });
    for stream in ["stdout", "stderr"] {
        for file in files_of(home.path(), stream) {
            // One that got another name meanwhile has been looked at.
            assert_no_line_is_torn(&std::fs::read_to_string(&file).unwrap_or_default(), stream);
        }
    }
}

/// The number of a line of the flood; panics when the line is not whole.
#[track_caller]
fn number_of(line: &str, stream: &str) -> u64 {
    let rest = line.strip_prefix(stream).and_then(|rest| rest.strip_suffix(" end"));
    let number = rest.and_then(|rest| rest.trim().split(' ').next()).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("a line of {stream} is torn: {line:?}"))
}

#[track_caller]
fn assert_no_line_is_torn(text: &str, stream: &str) {
    let flood = text.lines().filter(|line| line.contains("...."));
    let mut before = None;
    for number in flood.map(|line| number_of(line, stream)) {
        assert!(before.is_none_or(|before| before < number), "{stream} {number} comes after {before:?}");
        before = Some(number);
    }
}

/// Lines of `FAKE_LOG_EVERY_MS`: stream and number.
fn ticks(text: &str) -> Vec<(String, u64)> {
    let tick = |line: &str| {
        let (stream, number) = line.split_once(" tick ")?;
        Some((stream.rsplit(' ').next()?.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(tick).collect()
}

fn last_tick(home: &Home, stream: &str) -> u64 {
    let text = home.ok(&["logs", "a", "-n", "1", "--stream", stream]).stdout;
    ticks(&text).last().map_or(0, |(_, number)| *number)
}

#[test]
fn both_streams_are_woven_by_time_and_since_begins_at_its_moment() {
    const EVERY_MS: u64 = 50;
    let home = Home::fake();
    let port = home.instance("a", &json!({}));
    home.ok(&["up", "a"]);
    turn(port, &json!({"FAKE_LOG_EVERY_MS": EVERY_MS.to_string()}));
    wait_for("a second of lines", SOON, || last_tick(&home, "stderr") >= 20);
    let since = last_tick(&home, "stdout");
    let moment = orch_core::UnixMillis::now().to_rfc3339();
    wait_for("another second of lines", SOON, || last_tick(&home, "stderr") >= since + 20);
    turn(port, &json!({"FAKE_LOG_EVERY_MS": ""}));

    let woven = ticks(&home.ok(&["logs", "a", "-n", "100000"]).stdout);
    assert!(woven.iter().filter(|(stream, _)| stream == "stdout").count() > 40, "{woven:?}");
    // Two lines written in one go belong together; the index is exact to 100 ms, which is two ticks.
    let mut newest = 0;
    for (stream, number) in &woven {
        assert!(number + 5 >= newest, "{stream} tick {number} comes after tick {newest}: {woven:?}");
        newest = newest.max(*number);
    }
    for wanted in ["stdout", "stderr"] {
        let numbers: Vec<u64> =
            woven.iter().filter(|(stream, _)| stream == wanted).map(|(_, number)| *number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{wanted}: {numbers:?}");
    }

    let recent = ticks(&home.ok(&["logs", "a", "-n", "100000", "--since", &moment]).stdout);
    let first = recent.iter().map(|(_, number)| *number).min().unwrap();
    // Written in the 100 ms before belongs to the same mark; the look itself took a few ticks more.
    assert!(
        first + 5 >= since && first <= since + 20,
        "tick {since} was the last before, {first} the first since"
    );
}

#[test]
fn a_follower_loses_nothing_through_rotation_and_restart() {
    let home = Home::fake();
    let port = home.instance("a", &small_logs());
    home.start_daemon();
    home.ok(&["up", "a"]);
    let mut follow = home.spawn(&["logs", "a", "-f", "-n", "0", "--stream", "stdout"], "follow.txt");

    turn(port, &json!({"FAKE_LOG_EVERY_MS": "1"}));
    wait_for("lines in the follower", SOON, || ticks(&follow.output()).len() > 50);
    turn(port, &json!({"FAKE_LOG_EVERY_MS": ""}));
    // Past the limit of one file, at a pace that a disk keeps up with.
    for _ in 0..3 {
        turn(port, &json!({"FAKE_FLOOD_BYTES": (MIB * 6 / 10).to_string()}));
        turn(port, &json!({"FAKE_FLOOD_BYTES": ""}));
        wait_for("the rotation to settle", SOON, || {
            home.path().join("logs/a/stdout.log").metadata().unwrap().len() < MIB
        });
    }
    wait_for("a rotated file", SOON, || home.path().join("logs/a/stdout.log.1").exists());
    turn(port, &json!({"FAKE_LOG_EVERY_MS": "1"}));
    let before = ticks(&follow.output()).len();
    wait_for("lines after the rotation", SOON, || ticks(&follow.output()).len() > before + 50);

    let killed = home.engine_pid("a");
    kill_hard(killed);
    wait_for("the next engine", SOON, || {
        let row = home.ps("a");
        row["status"] == "running" && row["pid"] != killed
    });
    turn(port, &json!({"FAKE_LOG_EVERY_MS": "1"}));
    let before = ticks(&follow.output()).len();
    wait_for("lines of the next engine", SOON, || ticks(&follow.output()).len() > before + 50);
    assert!(!follow.has_ended());
    for (_, pair) in follow.output().lines().zip(ticks(&follow.output()).windows(2)) {
        // A new row of ticks begins at 0; within one none is lost or twice.
        assert!(pair[1].1 == pair[0].1 + 1 || pair[1].1 == 0, "{pair:?}");
    }
    signal(follow.pid(), nix::sys::signal::Signal::SIGINT);
    wait_for("the follower to end", SOON, || follow.has_ended());
}
