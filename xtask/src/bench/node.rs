//! `cargo xtask bench node`: what commands, daemon and shims cost on one machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::{free_port, wait_for};

use super::contenders::MODEL;
use super::numbers::{Spread, megabytes, milliseconds};
use super::ours::Ours;
use super::processes::{cpu_seconds, proportional_kib, serving};
use super::report::Table;
use super::{Options, machine, programs, report, usage};

/// Instances of the home that `ps` looks at.
const MANY: usize = 64;
/// Instances that the daemon probes.
const PROBED: usize = 100;
/// New processes for each `ps` that is measured, in each row.
const PS_RUNS: usize = 20;
const DAEMON_STOPS: usize = 20;
/// How long its processor time is counted: the kernel counts in hundredths of a second.
const PROBING: Duration = Duration::from_secs(5);
/// How long a daemon is left alone before its memory counts as idle: the first probes are over.
const IDLE: Duration = Duration::from_secs(3);

pub(super) fn run(options: &Options) -> Result<()> {
    let program = programs::llama_orch(options.program.as_deref())?;
    let machine = machine::describe();
    let mut table = Table::new(&["what", "how", "measured", "goal"]);
    many_instances(&program, options, &mut table)?;
    one_instance(&program, options, &mut table)?;
    let rows = options.rows;
    let head = format!(
        "Median of {rows} rows in one run (least to most), {}. {machine}",
        programs::engine_version()
    );
    report::publish("node", &format!("{head}\n\n{table}"), options.write)
}

/// `ps` in a home of many instances: without a daemon, first with none running, then with all.
fn many_instances(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let ours = Ours::new(program);
    let mut ports = distinct_ports(PROBED).into_iter().enumerate();
    write_instances(&ours, ports.by_ref().take(MANY));
    ours.run(&["config", "init"])?;
    measure_ps(&ours, options, "all stopped, no daemon", table)?;
    eprintln!("starting {MANY} engines");
    ours.run(&["up", "--all"])?;
    measure_ps(&ours, options, "all running, no daemon", table)?;
    ours.run(&["daemon", "start"])?;
    measure_ps(&ours, options, "all running, asking the daemon", table)?;
    write_instances(&ours, ports);
    eprintln!("starting {} more", PROBED - MANY);
    ours.run(&["up", "--all"])?;
    probing(&ours, options, table)?;
    ours.run(&["daemon", "stop"])?;
    ours.run(&["down", "--all", "--force"])?;
    Ok(())
}

/// Each is probed every second.
fn write_instances(ours: &Ours, ports: impl Iterator<Item = (usize, u16)>) {
    let every_second = json!({"healthcheck": {"interval": 1}});
    for (number, port) in ports {
        ours.write_instance(&format!("m{number:02}"), port, 1, &every_second);
    }
}

/// One for each instance. A port that is only free may be given out twice.
fn distinct_ports(count: usize) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    while ports.len() < count {
        ports.insert(free_port());
    }
    ports
}

fn measure_ps(ours: &Ours, options: &Options, when: &str, table: &mut Table) -> Result<()> {
    let listed = ours.json(&["ps", "--all", "--json"])?.as_array().map_or(0, Vec::len);
    ensure!(listed == MANY, "ps lists {listed} instances of {MANY}");
    let (mut walls, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..options.rows {
        let usage = usage::measure(ours.program(), &["ps", "--all"], PS_RUNS, |it| ours.prepare(it))?;
        walls.push(Spread::of(usage.walls.into_iter().map(milliseconds)).median);
        peaks.push(megabytes(usage.peak_kib));
    }
    let what = format!("`ps --all` with {MANY} instances, {when}");
    let how = format!("new process, warm page cache; median of {PS_RUNS} a row");
    table.row([what.clone(), how, format!("{} ms", Spread::of(walls).shown(1)), "≤ 10 ms".to_owned()]);
    let peak = format!("{} MB", Spread::of(peaks).shown(1));
    table.row([format!("{what}: memory"), "peak RSS".to_owned(), peak, "≤ 12 MB".to_owned()]);
    Ok(())
}

/// The daemon's share of a core while nobody wants anything of it but its own probes.
fn probing(ours: &Ours, options: &Options, table: &mut Table) -> Result<()> {
    let daemon = [ours.daemon_pid()?];
    let mut shares = Vec::new();
    for _ in 0..options.rows {
        let (begin, before) = (Instant::now(), cpu_seconds(&daemon)?);
        std::thread::sleep(PROBING);
        let used = cpu_seconds(&daemon)? - before;
        shares.push(100.0 * used / begin.elapsed().as_secs_f64());
    }
    table.row([
        format!("daemon, {PROBED} instances probed every second"),
        format!("processor time over {} s", PROBING.as_secs()),
        format!("{} % of a core", Spread::of(shares).shown(1)),
        "≤ 3 %".to_owned(),
    ]);
    Ok(())
}

/// Daemon, shim, crash and stop, with one instance that is ready.
fn one_instance(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let ours = Ours::new(program);
    let policy = json!({"initial_delay": 0, "max_retries": 100});
    ours.write_instance(MODEL, free_port(), 1, &json!({"restart_policy": policy}));
    ours.run(&["daemon", "start"])?;
    ours.run(&["up", MODEL])?;
    memory(&ours, options, table)?;
    crashes(&ours, options, table)?;
    daemon_stops(&ours, table)
}

/// Of a fresh daemon each row: it has adopted the engine, and nobody has asked it for anything.
fn memory(ours: &Ours, options: &Options, table: &mut Table) -> Result<()> {
    let shim = ours.running_engine(MODEL).shim_pid;
    let (mut daemons, mut shims) = (Vec::new(), Vec::new());
    for _ in 0..options.rows {
        ours.run(&["daemon", "restart"])?;
        let daemon = ours.daemon_pid()?;
        std::thread::sleep(IDLE);
        daemons.push(megabytes(proportional_kib(daemon)?));
        shims.push(megabytes(proportional_kib(shim)?));
    }
    let mut row = |what: &str, values: Vec<f64>, goal: &str| {
        let how = format!("PSS, one instance running, {} s after `daemon restart`", IDLE.as_secs());
        table.row([what.to_owned(), how, format!("{} MB", Spread::of(values).shown(1)), goal.to_owned()]);
    };
    row("orchestratord, idle: memory", daemons, "≤ 20 MB");
    row("shim of an engine: memory", shims, "≤ 3 MB");
    Ok(())
}

fn crashes(ours: &Ours, options: &Options, table: &mut Table) -> Result<()> {
    let (mut spawned, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..options.rows {
        let engine = ours.running_engine(MODEL);
        let pid = nix::unistd::Pid::from_raw(engine.pid.try_into().context("a pid is small")?);
        let begin = Instant::now();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).context("the engine lives")?;
        spawned.push(milliseconds(time_until_spawned(begin, engine.port, engine.pid)));
        wait_for("the new engine", Duration::from_secs(60), || {
            ours.engine(MODEL).is_some_and(|new| new.pid != engine.pid)
        });
        ready.push(milliseconds(begin.elapsed()));
        // Until the daemon too has seen it ready: a crash while loading is another story.
        wait_for("the instance to run", Duration::from_secs(60), || ours.run(&["health", MODEL]).is_ok());
    }
    let how = "`kill -9` of the engine, first delay 0".to_owned();
    let shown = |values: Vec<f64>| format!("{} ms", Spread::of(values).shown(1));
    table.row(["crash → new process".to_owned(), how.clone(), shown(spawned), "≤ 50 ms".to_owned()]);
    table.row(["crash → model ready again".to_owned(), how, shown(ready), "–".to_owned()]);
    Ok(())
}

/// Looks without pause: what is waited for takes milliseconds.
fn time_until_spawned(begin: Instant, port: u16, crashed: u32) -> Duration {
    loop {
        if serving(port, crashed).is_some() || begin.elapsed() > Duration::from_secs(10) {
            return begin.elapsed();
        }
        std::thread::yield_now();
    }
}

fn daemon_stops(ours: &Ours, table: &mut Table) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..DAEMON_STOPS {
        let engine = ours.running_engine(MODEL).pid;
        times.push(milliseconds(ours.run(&["daemon", "stop"])?));
        let after = ours.engine(MODEL).map(|it| it.pid);
        ensure!(after == Some(engine), "the engine did not outlive its daemon");
        ours.run(&["daemon", "start"])?;
    }
    let how = format!("the command, {DAEMON_STOPS} times; the engine keeps its pid");
    let shown = format!("{} ms", Spread::of(times).shown(0));
    table.row(["`daemon stop`".to_owned(), how, shown, "< 5 s".to_owned()]);
    Ok(())
}
