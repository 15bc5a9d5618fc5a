//! The project's chores: `cargo xtask <task>`.
//!
//! It knows how to get what tests need and in which order checks run. It knows nothing of the product itself.

#![expect(
    clippy::disallowed_methods,
    reason = "a developer's tool: it starts compilers and package managers"
)]

#[cfg(target_os = "linux")]
mod bench;
mod command;
mod man;
mod setup;
mod test;
#[cfg(target_os = "linux")]
mod windows;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  test [FILTER…]   everything a change must pass: formatting, lints, build, tests, documentation tests;
                   with filters only build and tests
  windows [FILTER…]
                   the programs built for Windows, and what users do with them, played under Wine; Linux only
  man [FOLDER]     a man page for every command (target/man)
  setup            only fetch what tests need into the cache (LLAMA_ORCH_TEST_CACHE, else ~/.cache/llama-orch)
";

#[cfg(target_os = "linux")]
use bench::{USAGE as BENCH_USAGE, run as bench};
#[cfg(target_os = "linux")]
use windows::{prepare as prepare_windows, run as windows};

#[cfg(not(target_os = "linux"))]
const BENCH_USAGE: &str = "";

#[cfg(not(target_os = "linux"))]
fn bench(_arguments: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("measuring reads /proc: only on Linux")
}

#[cfg(not(target_os = "linux"))]
fn windows(_filters: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("Wine is driven from Linux only; on Windows run: cargo xtask test")
}

#[cfg(not(target_os = "linux"))]
fn prepare_windows() {}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first().map(|(task, rest)| (task.as_str(), rest)) {
        Some(("test", filters)) => setup::everything().and_then(|()| test::run_checks(filters)),
        Some(("setup", [])) => setup::everything().map(|()| prepare_windows()),
        Some(("bench", rest)) => bench(rest),
        Some(("man", [])) => man::write(None),
        Some(("man", [folder])) => man::write(Some(folder)),
        Some(("windows", filters)) => windows(filters),
        _ => {
            eprint!("{USAGE}{BENCH_USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
