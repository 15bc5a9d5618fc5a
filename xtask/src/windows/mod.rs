//! `cargo xtask windows`: the programs built for Windows, and what users do with them, played under Wine.
//!
//! The scenarios drive the real `.exe` files from outside, as the end-to-end tests do on Linux; the engine is the
//! fake one, built for Windows too. What Wine cannot show is named in `docs/WINDOWS.md`.

mod build;
mod processes;
mod scenarios;
mod scene;
mod tools;
mod wine;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Result, bail};

use scenarios::{Scenario, all};
use scene::Scene;
use tools::Tools;
use wine::Wine;

/// The task: builds, then plays the scenarios whose names hold one of the filters.
pub(crate) fn run(filters: &[String]) -> Result<()> {
    match tools::find_or_install() {
        Ok(tools) => judge(&play(tools, filters)?),
        Err(missing) => bail!("the Windows scenarios need {missing}"),
    }
}

/// Installs what the scenarios need, where that is possible.
pub(crate) fn prepare() {
    if let Err(missing) = tools::find_or_install() {
        eprintln!("the Windows scenarios will be skipped: they need {missing}");
    }
}

/// The same as one of the checks: where its tools cannot be had it is left out, and says so.
pub(crate) fn check(closing_lines: &mut Vec<String>) -> Result<bool> {
    let tools = match tools::find_or_install() {
        Ok(tools) => tools,
        Err(missing) => {
            let line = format!("windows: SKIPPED, nothing of Windows was checked: it needs {missing}");
            eprintln!("{line}");
            closing_lines.push(line);
            return Ok(true);
        }
    };
    let tally = play(tools, &[])?;
    closing_lines.push(tally.to_string());
    Ok(tally.failed == 0)
}

struct Tally {
    passed: usize,
    failed: usize,
    seconds: f32,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, failed, seconds } = self;
        write!(f, "windows: {passed} passed, {failed} failed, after {seconds:.0} s")
    }
}

fn judge(tally: &Tally) -> Result<()> {
    match tally.failed {
        0 => Ok(()),
        failed => bail!("{failed} scenarios failed"),
    }
}

fn play(tools: Tools, filters: &[String]) -> Result<Tally> {
    let begin = Instant::now();
    let programs = build::build(tools)?;
    eprintln!("built for Windows after {:.0} s", begin.elapsed().as_secs_f32());
    let wine = Wine::start(programs)?;
    let mut tally = Tally { passed: 0, failed: 0, seconds: 0.0 };
    for scenario in all() {
        if filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter.as_str())) {
            if passes(&wine, &scenario) {
                tally.passed += 1;
            } else {
                tally.failed += 1;
            }
        }
    }
    drop(wine);
    tally.seconds = begin.elapsed().as_secs_f32();
    eprintln!("{tally}");
    Ok(tally)
}

/// What Wine says when its own server drops a program in the middle: seen about once in a hundred scenarios, and
/// never twice in a row.
const WINE_BROKE: &str = "wine client error";

/// Whether a scenario passes. One in which Wine itself broke is played once more, and that is said.
fn passes(wine: &Wine, scenario: &Scenario) -> bool {
    let words = match played(wine, scenario) {
        Some(words) if words.contains(WINE_BROKE) => {
            eprintln!("AGAIN {}: Wine itself broke: {words}", scenario.name);
            played(wine, scenario)
        }
        words => words,
    };
    if let Some(words) = &words {
        eprintln!("FAIL {}: {words}", scenario.name);
    }
    words.is_none()
}

/// Plays a scenario. It fails by panicking, as a test does: then these are its words.
fn played(wine: &Wine, scenario: &Scenario) -> Option<String> {
    let begin = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&Scene::new(wine))));
    let words = outcome.err().map(|panic| words_of(&*panic).to_owned());
    if words.is_none() {
        eprintln!("PASS [{:7.3}s] {}", begin.elapsed().as_secs_f32(), scenario.name);
    }
    // Also what a failed one has left: the next begins with an empty machine.
    wine.end_all_programs();
    words
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}
