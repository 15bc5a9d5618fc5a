//! The checks that a change must pass, in the order that fails soonest.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::command::{run, run_and_pick, succeeds};

/// All checks; with filters only those tests whose names hold one of them.
pub(crate) fn run_checks(filters: &[String]) -> Result<()> {
    let begin = Instant::now();
    if filters.is_empty() {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    }
    // Tests start whole programs, also those of other crates.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    let mut suites = vec![test_command(filters)];
    if filters.is_empty() {
        suites.push(cargo_with(&["test", "--workspace", "--doc"]));
    }
    let mut closing_lines = Vec::new();
    let mut passed = true;
    for mut suite in suites {
        let (success, lines) = run_and_pick(&mut suite, is_closing_line)?;
        passed &= success;
        closing_lines.extend(lines);
    }
    #[cfg(target_os = "linux")]
    if filters.is_empty() {
        passed &= crate::windows::check(&mut closing_lines)?;
    }
    eprintln!("\nall in all, after {} s:", begin.elapsed().as_secs());
    for line in closing_lines {
        eprintln!("  {line}");
    }
    if !passed {
        bail!("some tests failed");
    }
    Ok(())
}

/// nextest where it is installed: each test is a process of its own, with a limit.
fn test_command(filters: &[String]) -> Command {
    let has_nextest = succeeds("cargo", &["nextest", "--version"]);
    let mut command = if has_nextest {
        cargo_with(&["nextest", "run", "--workspace"])
    } else {
        eprintln!("cargo-nextest is not installed: cargo test instead");
        cargo_with(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--"])
    };
    command.args(filters);
    command
}

fn is_closing_line(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("Summary [")
        || (line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed;"))
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::is_closing_line;

    #[test]
    fn closing_lines_of_both_runners_are_known() {
        assert!(is_closing_line("     Summary [   0.775s] 33 tests run: 33 passed, 0 skipped"));
        assert!(is_closing_line("test result: ok. 8 passed; 0 failed; 0 ignored"));
        assert!(!is_closing_line("test result: ok. 0 passed; 0 failed; 0 ignored"));
        assert!(!is_closing_line("        PASS [   0.005s] testkit wait"));
    }
}
