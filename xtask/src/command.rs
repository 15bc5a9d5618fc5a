//! Running programs in the open: the command is shown, and so is all it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs to the end; fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command.status().with_context(|| format!("{} does not start", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// [`run`] with a limit, after which it is killed.
#[cfg(target_os = "linux")]
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let mut child = command.spawn().with_context(|| format!("{} does not start", shown(command)))?;
    let begin = Instant::now();
    loop {
        match child.try_wait().context("the child cannot be waited for")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{} failed: {status}", shown(command)),
            None if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{} took over {limit:?}", shown(command));
            }
        }
    }
}

/// Runs to the end, and gives back those lines of both streams that `wanted` picks, with whether it succeeded.
pub(crate) fn run_and_pick(command: &mut Command, wanted: fn(&str) -> bool) -> Result<(bool, Vec<String>)> {
    eprintln!("+ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} does not start", shown(command)))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let picked = std::thread::scope(|scope| {
        let out = scope.spawn(|| pass_through(stdout, std::io::stdout(), wanted));
        let mut picked = pass_through(stderr, std::io::stderr(), wanted);
        picked.extend(out.join().expect("copying lines does not panic"));
        picked
    });
    let status = child.wait().context("the child cannot be waited for")?;
    Ok((status.success(), picked))
}

/// Whether a program starts and says that all is well.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn pass_through(from: impl Read, mut to: impl Write, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut picked = Vec::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // Whoever closed our output does not want to read on; the checks still run to their end.
        let _ = writeln!(to, "{line}");
        if wanted(&line) {
            picked.push(line.trim().to_owned());
        }
    }
    picked
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
