//! What goals are set for, measured on the whole command.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use testkit::provider::{FakeProvider, Fault, Rule, Script};

use super::ours::Ours;
use super::shapes::{self, Shape};
use super::{AT_ONCE, STEPS};
use crate::bench::Options;
use crate::bench::numbers::{Spread, megabytes, microseconds, milliseconds};
use crate::bench::report::Table;

pub(super) fn table(program: &Path, options: &Options) -> Result<Table> {
    let mut table = Table::new(&["what", "how", "measured", "goal"]);
    steps_that_do_nothing(program, options, &mut table)?;
    answers_from_the_cache(program, options, &mut table)?;
    four_steps(program, options, &mut table)?;
    staggered(program, options, &mut table)?;
    Ok(table)
}

/// Prompts that contain `part` are answered after so many milliseconds.
fn slow(part: &str, milliseconds: u64) -> Rule {
    Rule { latency_ms: Some(milliseconds), ..Rule::on(part) }
}

/// A key that is not accepted: a failure that no retry follows.
fn refused_once(part: &str) -> Script {
    let refusal = Fault::Status { status: 401, retry_after: None, headers: BTreeMap::new(), body: None };
    Script::default().fault(part, refusal, 1)
}

/// Measures the same thing in each row.
fn spread(options: &Options, mut once: impl FnMut() -> Result<f64>) -> Result<Spread> {
    let values: Result<Vec<f64>> = (0..options.rows).map(|_| once()).collect();
    Ok(Spread::of(values?))
}

fn steps_that_do_nothing(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let cases = [
        (Shape::Wide, "relaxed", "≤ 5 µs"),
        (Shape::Chain, "relaxed", "≤ 25 µs"),
        (Shape::Wide, "strict", "≤ 10 µs"),
        (Shape::Chain, "strict", "≤ 300 µs"),
    ];
    for (shape, journal, goal) in cases {
        let ours = Ours::new(program);
        let spec = ours.spec("job.yaml", &shape.spec(STEPS))?;
        let usage = ours.usage(&spec, &["--concurrency", AT_ONCE, "--journal", journal], options.rows)?;
        let steps = usage.walls.into_iter().map(|wall| microseconds(wall) / STEPS as f64);
        let what = format!("{STEPS} steps that do nothing, {}, journal {journal}", shape.word());
        let how = "a step".to_owned();
        table.row([what.clone(), how, format!("{} µs", Spread::of(steps).shown(1)), goal.to_owned()]);
        let peak = format!("{:.1} MB", megabytes(usage.peak_kib));
        table.row([what, "peak RSS".to_owned(), peak, "≤ 60 MB".to_owned()]);
    }
    Ok(())
}

/// Steps that have asked a model once: run again as another job, and resumed with one of them left.
fn answers_from_the_cache(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let (mut cached, mut resumed) = (Vec::new(), Vec::new());
    for _ in 0..options.rows {
        let provider = FakeProvider::start(refused_once(&format!("question {}.", STEPS - 1)));
        let ours = Ours::with_provider(program, &provider.url());
        let spec = ours.spec("questions.yaml", &shapes::questions(STEPS))?;
        ours.run_into_failure(&spec, &["--job-id", "first"])?;
        resumed.push(milliseconds(ours.run(&spec, &["--job-id", "first", "--resume"])?));
        cached.push(microseconds(ours.run(&spec, &["--job-id", "second"])?) / STEPS as f64);
    }
    let what = format!("{STEPS} steps that ask a model");
    table.row([
        format!("{what}, all answers in the cache"),
        "a step".to_owned(),
        format!("{} µs", Spread::of(cached).shown(1)),
        "≤ 15 µs".to_owned(),
    ]);
    table.row([
        format!("{what}, resumed with one of them left"),
        "the command".to_owned(),
        format!("{} ms", Spread::of(resumed).shown(0)),
        "≤ 150 ms".to_owned(),
    ]);
    Ok(())
}

/// architect → {builder, docs} → qa, whose model takes 50, 250, 250 and 50 ms.
fn four_steps(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let pace = [("architect.", 50), ("builder.", 250), ("docs.", 250), ("qa.", 50)];
    let paced =
        |script| pace.into_iter().fold(script, |script: Script, (part, time)| script.rule(slow(part, time)));
    let provider = FakeProvider::start(paced(Script::default()));
    let (mut serial, mut parallel, mut cached, mut resumed) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.rows {
        let ours = Ours::with_provider(program, &provider.url());
        let spec = ours.spec("four.yaml", &shapes::four_steps())?;
        serial.push(ours.run(&spec, &["--concurrency", "1", "--no-cache"])?.as_secs_f64());
        parallel.push(ours.run(&spec, &["--concurrency", AT_ONCE])?.as_secs_f64());
        cached.push(ours.run(&spec, &["--concurrency", AT_ONCE])?.as_secs_f64());
        provider.set_script(paced(refused_once("docs.")));
        ours.run_into_failure(&spec, &["--job-id", "half", "--no-cache"])?;
        resumed.push(ours.run(&spec, &["--job-id", "half", "--resume", "--no-cache"])?.as_secs_f64());
    }
    let rows = [
        ("one at a time", serial, "0.60 s"),
        ("four at once", parallel, "≤ 0.37 s"),
        ("from the cache", cached, "≤ 0.03 s"),
        ("resumed with two of four done", resumed, "0.30 s"),
    ];
    for (how, values, goal) in rows {
        let what = "four steps, model of 50, 250, 250 and 50 ms".to_owned();
        table.row([what, how.to_owned(), format!("{} s", Spread::of(values).shown(3)), goal.to_owned()]);
    }
    Ok(())
}

fn staggered(program: &Path, options: &Options, table: &mut Table) -> Result<()> {
    let provider = FakeProvider::start(Script::default().rule(slow("fast", 10)).rule(slow("slow", 100)));
    let measured = spread(options, || {
        let ours = Ours::with_provider(program, &provider.url());
        let spec = ours.spec("staggered.yaml", &shapes::staggered(20))?;
        Ok(ours.run(&spec, &["--concurrency", AT_ONCE])?.as_secs_f64())
    })?;
    table.row([
        "two staggered chains of 20 steps, 10 and 100 ms in turn".to_owned(),
        "the command".to_owned(),
        format!("{} s", measured.shown(3)),
        "≤ 1.2 s (in waves: 2.0 s)".to_owned(),
    ]);
    Ok(())
}
