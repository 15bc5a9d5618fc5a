//! `cargo xtask bench`: what llama-orch costs, side by side with others in one run.
//!
//! Everything is measured from outside, as a user would meet it: programs are started, requests are sent, the
//! kernel is asked. Numbers of different runs are never compared.

mod contenders;
mod gateway;
mod idle;
mod keep_alive;
mod latency;
mod machine;
mod node;
mod numbers;
mod ours;
mod processes;
mod programs;
mod report;
mod throughput;
mod usage;
mod workflow;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::setup;

pub(crate) const USAGE: &str = "  bench gateway|node|workflow   measure, and write docs/BENCHMARKS.md
      --rows N             how often everything is repeated (8)
      --seconds N          length of one load (5)
      --no-write           only print
      --llama-orch FILE    this program, not a fresh release build
";

pub(super) struct Options {
    rows: usize,
    seconds: u64,
    write: bool,
    program: Option<PathBuf>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let Some((what, rest)) = arguments.split_first() else { bail!("bench what?\n{USAGE}") };
    match what.as_str() {
        "usage" => usage::main(rest),
        "gateway" => measure(gateway::run, rest),
        "node" => measure(node::run, rest),
        "workflow" => measure(workflow::run, rest),
        other => bail!("there is no bench {other}\n{USAGE}"),
    }
}

fn measure(run: fn(&Options) -> Result<()>, arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    setup::everything()?;
    run(&options)
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options { rows: 8, seconds: 5, write: true, program: None };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if flag == "--no-write" {
            options.write = false;
            continue;
        }
        let value = rest.next().with_context(|| format!("{flag} needs a value, or is unknown\n{USAGE}"))?;
        match flag.as_str() {
            "--rows" => options.rows = at_least_one(flag, value)? as usize,
            "--seconds" => options.seconds = at_least_one(flag, value)?,
            "--llama-orch" => options.program = Some(PathBuf::from(value)),
            _ => bail!("unknown flag {flag}\n{USAGE}"),
        }
    }
    Ok(options)
}

fn at_least_one(flag: &str, value: &str) -> Result<u64> {
    let number = value.parse().ok().filter(|&number| number > 0);
    number.with_context(|| format!("{flag} takes a number from 1 on, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Options> {
        parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn without_flags_it_is_eight_rows_that_are_written_down() {
        let options = parse_words("").unwrap();
        assert_eq!((options.rows, options.seconds, options.write), (8, 5, true));
        let options = parse_words("--rows 2 --no-write --llama-orch a/b").unwrap();
        assert_eq!((options.rows, options.write, options.program), (2, false, Some(PathBuf::from("a/b"))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in ["--rows 0", "--rows", "--rows x", "--fast 1", "--fast"] {
            assert!(parse_words(words).is_err(), "{words}");
        }
    }
}
