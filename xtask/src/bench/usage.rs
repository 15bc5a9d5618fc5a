//! How long a program takes and how much memory it needs at most, seen from a small process of its own.
//!
//! The kernel tells the peak of all of a parent's children together, and starts a child's peak at its parent's:
//! so the parent is started fresh for each measurement, and is smaller than what it measures.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};

use super::processes::own_peak_kib;

/// What came of running one program several times.
pub(super) struct Usage {
    /// From before the start until its end was seen.
    pub(super) walls: Vec<Duration>,
    pub(super) peak_kib: u64,
}

/// The hidden task that runs in the small process: `bench usage COUNT PROGRAM [ARGUMENT…]`.
pub(super) fn main(arguments: &[String]) -> Result<()> {
    let [count, program, arguments @ ..] = arguments else {
        anyhow::bail!("usage COUNT PROGRAM [ARGUMENT…]");
    };
    let count: usize = count.parse().context("a count is a number")?;
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let status = command.status().with_context(|| format!("{program} does not start"))?;
        let elapsed = begin.elapsed();
        ensure!(status.success(), "{program} failed: {status}");
        lines.push(elapsed.as_micros().to_string());
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).context("the kernel tells no usage")?.max_rss();
    lines.push(format!("peak {peak} {}", own_peak_kib()?));
    writeln!(std::io::stdout(), "{}", lines.join("\n")).context("the result cannot be printed")
}

/// Runs a program `count` times; `prepare` gives it its environment. One more run before warms the page cache.
pub(super) fn measure(
    program: &Path,
    arguments: &[&str],
    count: usize,
    prepare: impl FnOnce(&mut Command),
) -> Result<Usage> {
    let own = std::env::current_exe().context("a running program has an executable")?;
    let mut command = Command::new(own);
    command.args(["bench", "usage", &(count + 1).to_string()]).arg(program).args(arguments);
    prepare(&mut command);
    let output = command.output().context("this program does not start a second time")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&said).with_context(|| format!("no usage was told:\n{said}"))
}

/// `None` also when the small process was the larger one: its peak is then all that is known.
fn parse(said: &str) -> Option<Usage> {
    let (walls, peaks) = said.trim_end().split_once("\npeak ")?;
    let (peak, measurers) = peaks.split_once(' ')?;
    let (peak_kib, measurers): (u64, u64) = (peak.parse().ok()?, measurers.parse().ok()?);
    let walls: Option<Vec<Duration>> =
        walls.lines().skip(1).map(|line| line.parse().ok().map(Duration::from_micros)).collect();
    (peak_kib > measurers).then_some(Usage { walls: walls?, peak_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_only_warms() {
        let usage = parse("9000\n3500\n3600\npeak 6000 2500\n").unwrap();
        assert_eq!(usage.walls, [3500, 3600].map(Duration::from_micros));
        assert_eq!(usage.peak_kib, 6000);
    }

    #[test]
    fn a_peak_that_may_be_the_measurers_is_none() {
        assert!(parse("9000\n3500\npeak 2500 2500\n").is_none());
    }
}
