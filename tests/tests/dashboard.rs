//! The dashboard in a real terminal, over real engines that chat.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use support::home::{Home, pid_of};
use support::processes::{kill_hard, signal};
use support::stream::Stream;
use support::terminal::RealTerminal;
use testkit::wait_for;

use support::SOON;

/// More than a minute's work for the tiny model in an unoptimised build.
const LONG: u32 = 30_000;
const UPDATE: &str = "UPDATE_DASHBOARD";
const INTRODUCTION: &str = "\
# The dashboard

`llama-orch dashboard` (or `top`) shows all instances on one screen, looks again each second, and takes keys; `?` lists them.
It works with a daemon, without one, and with `--server`; steps run in the background, and what came of them stands in the
last line. `d` and `R` ask first, because they take an engine away from those who use it. Nothing is said by colour alone,
and `NO_COLOR` or `--color never` leaves colour out.

Below is a real terminal of 150 × 34 with three live engines (`llama-server`, a tiny random model), two of them chatting, as
`UPDATE_DASHBOARD=1 cargo nextest run -p end-to-end --test dashboard` captures it.

";

/// The row of an instance on a screen.
fn row<'a>(screen: &'a str, name: &str) -> Option<&'a str> {
    let is_row = |line: &&str| line.trim_start_matches(['>', ' ']).split_whitespace().next() == Some(name);
    screen.lines().find(is_row)
}

/// Whether one of an instance's slots generates.
fn writes(screen: &str, name: &str) -> bool {
    row(screen, name)
        .is_some_and(|row| row.split_whitespace().any(|word| word.contains('W') && word.len() == 4))
}

#[test]
fn three_live_engines_are_watched_and_steered_in_a_real_terminal() {
    let home = Home::real();
    for name in ["chat", "coder", "embed"] {
        home.instance(name, &json!({"server": {"parallel": 4}, "model": {"context_size": 4 * 32_768}}));
    }
    let daemon = home.start_daemon();
    home.ok(&["up", "--all"]);
    let streams = ["chat", "coder"].map(|model| Stream::chat(&daemon.address, model, LONG));
    let terminal = RealTerminal::open(&home, 150, 34);
    terminal.start("dashboard --events-for chat");

    let working = terminal.wait_for("two engines at work, with their pace", |screen| {
        let headline = screen.lines().next().unwrap_or_default();
        let has_pace = headline.contains("tokens/s") && !headline.contains("| 0 tokens/s");
        has_pace && writes(screen, "chat") && writes(screen, "coder") && screen.contains("writing")
    });
    assert!(row(&working, "embed").unwrap().contains("...."), "nobody asks it anything\n{working}");
    assert!(working.contains("health_changed"), "{working}");
    capture(&working);

    terminal.keys(&["l"]);
    terminal.wait_for_text("listening on http://127.0.0.1");
    terminal.keys(&["l", "/", "embed", "Enter"]);
    terminal.wait_for("the filter", |screen| row(screen, "embed").is_some() && row(screen, "chat").is_none());
    terminal.keys(&["d", "y"]);
    terminal.wait_for_text("embed is stopped");
    assert_eq!(home.ps("embed")["status"], "stopped");
    terminal.keys(&["u"]);
    terminal.wait_for_text("embed is ready");
    assert_eq!(home.ps("embed")["status"], "running");

    terminal.keys(&["Escape"]);
    terminal.resize(40, 10);
    terminal.wait_for("a small screen", |screen| {
        row(screen, "chat").is_some() && !screen.contains("events") && !screen.contains("MEMORY")
    });
    terminal.resize(150, 34);
    terminal.wait_for_text("events of chat, newest first");
    assert!(!streams[0].has_ended(), "watching disturbs nobody");
    terminal.keys(&["q"]);
    terminal.wait_for_text("rc=0");
}

/// Shows the world what it looks like.
fn capture(screen: &str) {
    if std::env::var_os(UPDATE).is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DASHBOARD.md");
    let screen: Vec<&str> = screen.lines().map(str::trim_end).collect();
    std::fs::write(path, format!("{INTRODUCTION}```text\n{}\n```\n", screen.join("\n"))).unwrap();
}

#[test]
fn the_dashboard_outlives_its_daemon_and_meets_the_next_one() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let daemon = home.start_daemon();
    home.ok(&["up", "chat"]);
    let terminal = RealTerminal::open(&home, 120, 24);
    terminal.start("dashboard");
    terminal.wait_for_text("| daemon |");
    kill_hard(daemon.pid);
    let alone = terminal.wait_for_text("no daemon: what crashes stays down");
    assert!(row(&alone, "chat").unwrap().contains("running"), "{alone}");
    // Without a daemon it does the steps itself.
    terminal.keys(&["R", "y"]);
    terminal.wait_for_text("chat is ready");
    home.start_daemon();
    terminal.wait_for_text("a daemon watches over the instances now");
    terminal.keys(&["C-c"]);
    terminal.wait_for_text("rc=130");
}

#[test]
fn the_terminal_is_given_back_while_suspended_and_at_a_signal() {
    let home = Home::fake();
    home.instance("chat", &json!({}));
    let terminal = RealTerminal::open(&home, 80, 24);
    terminal.start("top");
    terminal.wait_for("the table", |screen| row(screen, "chat").is_some());
    terminal.keys(&["C-z"]);
    terminal.wait_for_text("Stopped");
    terminal.keys(&["stty -a | grep -o '.icanon'; fg; echo again=$?", "Enter"]);
    terminal.wait_for("the table again", |screen| row(screen, "chat").is_some() && screen.contains("q quit"));
    let pid = dashboard_pid(&home);
    signal(pid, Signal::SIGTERM);
    let shell = terminal.wait_for_text("again=130");
    assert!(shell.contains(" icanon"), "while suspended the terminal reads lines\n{shell}");
    terminal.keys(&["clear; stty -a | grep -o '.icanon'", "Enter"]);
    terminal.wait_for("a terminal that reads lines", |screen| screen.lines().any(|line| line == " icanon"));
}

/// The one process of this home that is a dashboard.
fn dashboard_pid(home: &Home) -> u32 {
    let of_home = |pid: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let variables = String::from_utf8_lossy(&read("environ")).into_owned();
        arguments.ends_with("\0top\0") && variables.contains(&home.path().display().to_string())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(of_home).expect("it runs")
}

#[test]
fn another_control_plane_is_watched_by_its_address() {
    let (there, here) = (Home::real(), Home::fake());
    there.instance("chat", &json!({}));
    let daemon = there.start_daemon();
    there.ok(&["up", "chat"]);
    let terminal = RealTerminal::open(&here, 120, 24);
    terminal.start(&format!("--server http://{} dashboard --events-for chat", daemon.address));
    let screen = terminal.wait_for_text("| server |");
    assert!(screen.contains(&daemon.address) && screen.contains("events of chat"), "{screen}");
    terminal.wait_for("events of one instance", |screen| {
        screen.contains("instance_started") && !screen.contains("daemon_started")
    });
    terminal.keys(&["l"]);
    terminal.wait_for_text("logs can be read on the machine where the instances are");
    kill_hard(daemon.pid);
    let lost = terminal.wait_for_text("error: the daemon at");
    assert!(row(&lost, "chat").is_some(), "the last picture stays\n{lost}");
    terminal.keys(&["q"]);
    terminal.wait_for_text("rc=0");
}

#[test]
fn stats_tell_the_pace_of_a_real_engine_and_let_a_sleeping_one_sleep() {
    let home = Home::real();
    home.instance("chat", &json!({}));
    let port = home.instance("nap", &json!({"args": ["--sleep-idle-seconds", "1"]}));
    home.ok(&["up", "--all"]);
    let daemon = home.start_daemon();
    let chat_row = || {
        let rows = home.json(&["stats", "--json"]);
        rows.as_array().unwrap().iter().find(|row| row["name"] == "chat").unwrap().clone()
    };
    wait_for("the daemon to route", SOON, || !home.ps("chat")["slots"].is_null());
    let stream = Stream::chat(&daemon.address, "chat", LONG);
    stream.wait_for_more();
    let busy = chat_row();
    assert!(busy["tokens_per_second"].as_f64() > Some(1.0), "{busy}");
    assert!(busy["cpu_percent"].as_f64() > Some(1.0), "{busy}");
    assert_eq!(busy["slot_activity"][0]["state"], "writing", "{busy}");
    assert!(pid_of(&busy["pid"]) > 0);
    drop(stream);
    wait_for("silence", SOON, || chat_row()["tokens_per_second"] == 0.0);

    let watching = home.spawn(&["stats", "--watch", "--json"], "watched");
    let address = format!("127.0.0.1:{port}");
    let sleeps = || testkit::http::get(&address, "/props").unwrap().json()["is_sleeping"] == true;
    wait_for("the engine to fall asleep while it is watched", SOON, sleeps);
    let lines = watching.output().lines().count();
    wait_for("three looks more", SOON, || watching.output().lines().count() > lines + 3);
    assert!(sleeps(), "nobody woke it");
}
