//! One step on several instances: all are tried, side by side, and the first failure's code is the command's.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use orch_core::{ExitCode, Failure};
use serde_json::{Value, json};

use crate::context::Context;
use crate::ending::{CommandResult, Ended};
use crate::progress::Spinner;
use crate::targets::{Chosen, Target};

/// So many instances at a time: each step starts a process or waits for one.
const AT_A_TIME: usize = 16;

/// A step: what came of it, in words that follow the name. Called from several threads.
pub(crate) type Step<'a> = dyn Fn(&Target) -> Result<String, Failure> + Sync + 'a;

/// Takes the step on each, tells each outcome as it comes, and ends with the code of the first that failed.
pub(crate) fn carry_out(context: &Context, doing: &str, chosen: &[Chosen], step: &Step<'_>) -> CommandResult {
    if chosen.is_empty() {
        context.talk.note("nothing to do");
    }
    let spinner = Spinner::start(context.talk, &headline(doing, chosen));
    let (sender, outcomes) = mpsc::channel();
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<Result<String, Failure>>> = chosen.iter().map(|_| None).collect();
    let mut closed = None;
    std::thread::scope(|scope| {
        for _ in 0..chosen.len().min(AT_A_TIME) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((index, one)) = take(next, chosen) {
                    let result = one.target.as_ref().map_err(Failure::clone).and_then(step);
                    // The receiver lives until all senders are gone.
                    let _ = sender.send((index, result));
                }
            });
        }
        drop(sender);
        for (index, result) in outcomes {
            let told = spinner.pause(|| tell(context, chosen, index, &result));
            closed = closed.take().or(told.err());
            results[index] = Some(result);
        }
    });
    spinner.stop();
    if let Some(ended) = closed {
        return Err(ended);
    }
    if context.printer.json() {
        let lines = chosen.iter().zip(&results).map(|(one, result)| outcome_json(&one.name, result.as_ref()));
        context.printer.document(&lines.collect::<Vec<_>>())?;
    }
    let first = results.into_iter().flatten().find_map(Result::err);
    first.map_or(Ok(()), |failure| Err(Ended::Told(failure.exit)))
}

fn take<'a>(next: &AtomicUsize, chosen: &'a [Chosen]) -> Option<(usize, &'a Chosen)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    chosen.get(index).map(|one| (index, one))
}

fn headline(doing: &str, chosen: &[Chosen]) -> String {
    let names: Vec<&str> = chosen.iter().map(|one| one.name.as_str()).collect();
    format!("{doing} {}", names.join(", "))
}

fn tell(
    context: &Context,
    chosen: &[Chosen],
    index: usize,
    result: &Result<String, Failure>,
) -> CommandResult {
    let name = &chosen[index].name;
    match result {
        Err(failure) if chosen.len() > 1 && !names(&failure.message, name) => {
            let message = format!("{name}: {}", failure.message);
            context.talk.failure(&Failure { message, ..failure.clone() });
        }
        Err(failure) => context.talk.failure(failure),
        Ok(_) if context.printer.json() => {}
        Ok(words) => context.printer.line(format_args!("{name} {words}"))?,
    }
    Ok(())
}

/// Whether a message tells by itself which of several instances it is about.
fn names(message: &str, name: &str) -> bool {
    let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    message.split(|char| !is_part(char)).any(|word| word == name)
}

fn outcome_json(name: &str, result: Option<&Result<String, Failure>>) -> Value {
    match result {
        Some(Err(failure)) => json!({
            "name": name, "ok": false, "exit_code": failure.exit, "message": failure.message, "hint": failure.hint,
        }),
        Some(Ok(words)) => {
            json!({"name": name, "ok": true, "exit_code": ExitCode::Success, "message": words})
        }
        None => json!({"name": name, "ok": false, "exit_code": ExitCode::General, "message": "not tried"}),
    }
}

/// Warnings from several threads, each told once.
#[derive(Default)]
pub(crate) struct Warnings {
    told: Mutex<Vec<String>>,
}

impl Warnings {
    pub(crate) fn tell(&self, context: &Context, text: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.iter().any(|known| known == text) {
            context.talk.warning(text);
            told.push(text.to_owned());
        }
    }
}
