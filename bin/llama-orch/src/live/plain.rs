//! A job told line by line, for logs and pipes: one line for each event that matters.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::Value;
use workflow::{Event, EventType};

use super::rows::plain;
use crate::words::with_commas;

/// Tells events; remembers what is told at a step's end.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    cached: HashSet<String>,
    tokens: HashMap<String, u64>,
}

impl Teller {
    /// The lines for events that came together. A step that began and ended among them is told once.
    pub(crate) fn tell(&mut self, events: &[Event]) -> String {
        let ended: HashSet<&str> = events
            .iter()
            .filter(|event| event.kind.ends_step())
            .filter_map(|event| event.step.as_deref())
            .collect();
        let mut text = String::new();
        for event in events {
            let is_told_soon = || event.step.as_deref().is_some_and(|step| ended.contains(step));
            if event.kind == EventType::StepStarted && is_told_soon() {
                continue;
            }
            if let Some(said) = self.words(event) {
                let time = event.ts.get(11..19).unwrap_or_default();
                let subject = event.step.as_deref().unwrap_or(&event.job_id);
                let _ = writeln!(text, "{time}  {}", plain(&format!("{subject}: {said}")));
            }
        }
        text
    }

    fn words(&mut self, event: &Event) -> Option<String> {
        let step = event.step.as_deref().unwrap_or_default();
        Some(match event.kind {
            EventType::JobStarted | EventType::StepStarted => "started".to_owned(),
            EventType::JobResumed => "resumed".to_owned(),
            EventType::StepSucceeded if self.cached.remove(step) => "done, from the cache".to_owned(),
            EventType::StepSucceeded => self.done(step, number(event, "duration_s")),
            EventType::StepFailed => format!("failed, {}: {}", text(event, "kind"), text(event, "message")),
            EventType::StepRetrying => {
                format!("{}, again in {:.1}s", text(event, "kind"), number(event, "delay_s"))
            }
            EventType::StepCancelled => "cancelled".to_owned(),
            EventType::StepSkipped => format!("skipped, {}", text(event, "reason").replace('_', " ")),
            EventType::LlmResponse => {
                *self.tokens.entry(step.to_owned()).or_default() += number(event, "tokens") as u64;
                if text(event, "finish_reason") != "length" {
                    return None;
                }
                format!("the answer was cut at {} tokens", with_commas(number(event, "tokens_out") as u64))
            }
            EventType::FileWritten => format!("{} {}", text(event, "reason"), text(event, "path")),
            EventType::FileRefused => format!("file refused: {}", text(event, "message")),
            EventType::CacheHit | EventType::CacheJoined => {
                self.cached.insert(step.to_owned());
                return None;
            }
            EventType::CacheRefused => format!("stored result refused: {}", text(event, "reason")),
            EventType::GateWaiting => format!("waits for a decision: {}", text(event, "message")),
            EventType::GateDecided => format!("decided: {}", text(event, "choice")),
            EventType::MapExpanded => format!("{} elements", number(event, "count")),
            EventType::LoopIterated => format!("iteration {}", number(event, "iteration")),
            EventType::BudgetExceeded => "the budget is used up".to_owned(),
            EventType::JournalRepaired => {
                format!("journal repaired, {} bytes of a torn line cut", number(event, "bytes"))
            }
            EventType::LeaseLost => "lease lost".to_owned(),
            // How the job ended is told when all is written.
            EventType::JobSucceeded
            | EventType::JobFailed
            | EventType::JobCancelled
            | EventType::JobWaiting
            | EventType::LlmRequest
            | EventType::CacheMiss
            | EventType::CacheStored => return None,
        })
    }

    fn done(&mut self, step: &str, seconds: f64) -> String {
        let done = format!("done in {seconds:.1}s");
        match self.tokens.remove(step) {
            Some(tokens) => format!("{done}, {} tokens", with_commas(tokens)),
            None => done,
        }
    }
}

fn text<'a>(event: &'a Event, name: &str) -> &'a str {
    event.data.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(event: &Event, name: &str) -> f64 {
    event.data.get(name).and_then(Value::as_f64).unwrap_or_default()
}
