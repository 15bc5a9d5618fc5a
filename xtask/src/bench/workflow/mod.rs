//! `cargo xtask bench workflow`: what a step costs where it does nothing, beside others; and how long jobs take whose
//! steps ask a model of known speed.

mod goals;
mod ours;
mod peers;
mod shapes;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use self::ours::Ours;
use self::peers::{AT_ONCE, Peer, Task};
use self::shapes::Shape;
use super::numbers::{Spread, microseconds};
use super::report::Table;
use super::{Options, machine, programs, report};
use crate::setup;

/// Steps of a graph, for all who manage so many.
const STEPS: usize = 10_000;

pub(super) fn run(options: &Options) -> Result<()> {
    let program = programs::llama_orch(options.program.as_deref())?;
    let environment = setup::workflow_peers()?;
    let machine = machine::describe();
    let beside = side_by_side(&program, &environment, options)?;
    let goals = goals::table(&program, options)?;
    let rows = options.rows;
    let text = format!(
        "Median of {rows} rows in one run (least to most). {machine}\n\nMicroseconds a step:\n\n{beside}\n\
         {}\n\nllama-orch alone, the whole command:\n\n{goals}",
        versions()
    );
    report::publish("workflow", &text, options.write)
}

fn versions() -> String {
    let make = programs::version(Path::new("make"), "--version");
    format!("{}; {make}.", testkit::WORKFLOW_PEERS.join(", "))
}

/// Everybody does every task once in a row, and in the next row in the opposite order.
fn side_by_side(program: &Path, environment: &Path, options: &Options) -> Result<Table> {
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(|peer| peer.is_there()).collect();
    let mut head = vec!["", "steps"];
    head.extend(Task::ALL.iter().map(|task| task.word()));
    let mut table = Table::new(&head);
    let mut measured = vec![vec![Vec::new(); Task::ALL.len()]; peers.len() + 1];
    for row in 0..options.rows {
        for (number, task) in Task::ALL.into_iter().enumerate() {
            eprintln!("row {} of {}: {}", row + 1, options.rows, task.word());
            let mut turns: Vec<usize> = (0..=peers.len()).collect();
            if row % 2 == 1 {
                turns.reverse();
            }
            for turn in turns {
                let (steps, time) = match peers.get(turn) {
                    Some(peer) if !peer.can(task) => continue,
                    Some(peer) => (peer.steps(STEPS), peer.measure(task, STEPS, environment)?),
                    None => (STEPS, ours_once(program, task)?),
                };
                measured[turn][number].push(microseconds(time) / steps as f64);
            }
        }
    }
    let names = peers.iter().map(|peer| (peer.name(), peer.steps(STEPS))).chain([("llama-orch", STEPS)]);
    for ((name, steps), tasks) in names.zip(measured) {
        let shown = |values: Vec<f64>| {
            if values.is_empty() { "–".to_owned() } else { Spread::of(values).shown(1) }
        };
        let cells = [name.to_owned(), steps.to_string()].into_iter().chain(tasks.into_iter().map(shown));
        table.row(cells);
    }
    Ok(table)
}

/// The whole command, with its start and the reading of the spec.
fn ours_once(program: &Path, task: Task) -> Result<Duration> {
    let ours = Ours::new(program);
    let shape = task.shape();
    let spec = ours.spec("job.yaml", &shape.spec(STEPS))?;
    match task {
        Task::Fresh(_) => ours.run(&spec, &["--concurrency", AT_ONCE]),
        // A finished job resumed: every step is looked at, none is done.
        Task::Again => {
            ours.run(&spec, &["--job-id", "again"])?;
            ours.run(&spec, &["--job-id", "again", "--resume"])
        }
        Task::Resume => {
            let failing = ours.spec("failing.yaml", &Shape::Chain.spec_with_a_last_step_that_fails(STEPS))?;
            ours.run_into_failure(&failing, &["--job-id", "resume"])?;
            ours.run(&spec, &["--job-id", "resume", "--resume"])
        }
    }
}
