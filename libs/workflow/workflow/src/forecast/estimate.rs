//! What a run is likely to cost, judged by earlier ones. Pure.

use std::collections::BTreeMap;

use workflow_spec::Graph;

use super::{Forecast, Outlook, StepForecast, is_child};
use crate::{CacheUse, Manifest, StepStatus};

/// What steps took in earlier runs, by their names.
#[derive(Clone, Debug, Default)]
pub struct PastSteps(BTreeMap<String, PastStep>);

#[derive(Clone, Copy, Debug, Default)]
struct PastStep {
    duration_s: f64,
    tokens: u64,
}

impl PastSteps {
    /// Learns from a run what is not known from one that was learnt from before: begin with the newest.
    pub fn learn(&mut self, run: &Manifest) {
        for step in run.steps() {
            let was_made = step.status == StepStatus::Succeeded
                && !matches!(step.cache, Some(CacheUse::Hit | CacheUse::Resume | CacheUse::Joined));
            if was_made && let Some(duration_s) = step.duration_s {
                let past = PastStep { duration_s, tokens: step.tokens };
                self.0.entry(step.id.clone()).or_insert(past);
            }
        }
    }

    fn duration_s(&self, id: &str) -> Option<f64> {
        self.0.get(id).map(|past| past.duration_s)
    }

    /// Of a step and those that it was made of.
    fn tokens(&self, id: &str) -> Option<u64> {
        let own = self.0.get(id)?.tokens;
        let children = self.0.iter().filter(|(child, _)| is_child(child, id)).map(|(_, past)| past.tokens);
        Some(own + children.sum::<u64>())
    }
}

/// What a run is likely to cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// In the order of the forecast.
    pub steps: Vec<StepEstimate>,
    pub tokens: u64,
    /// The steps of the file whose times follow one another, and what they take together.
    pub critical_path: Vec<String>,
    pub duration_s: f64,
    /// Some steps have never been made: it will be more.
    pub is_least: bool,
}

/// What a step is likely to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepEstimate {
    pub tokens: Option<u64>,
    pub duration_s: Option<f64>,
}

impl Forecast {
    pub fn estimate(&self, graph: &Graph, past: &PastSteps) -> Estimate {
        let steps: Vec<StepEstimate> = self.steps.iter().map(|step| self.estimate_step(step, past)).collect();
        let unknown = |(step, estimate): (&StepForecast, &StepEstimate)| {
            !step.outlook.is_free() && step.outlook != Outlook::Gate && estimate.duration_s.is_none()
        };
        let (critical_path, duration_s) = self.critical_path(graph, &steps);
        Estimate {
            tokens: steps.iter().filter_map(|step| step.tokens).sum(),
            is_least: self.steps.iter().zip(&steps).any(unknown),
            steps,
            critical_path,
            duration_s,
        }
    }

    fn estimate_step(&self, step: &StepForecast, past: &PastSteps) -> StepEstimate {
        if step.outlook.is_free() {
            return StepEstimate { tokens: Some(0), duration_s: Some(0.0) };
        }
        let duration_s = past.duration_s(&step.id);
        let has_children = self.steps.iter().any(|other| is_child(&other.id, &step.id));
        // What it is made of is counted there.
        let tokens = if has_children { Some(0) } else { past.tokens(&step.id).or(step.prompt_tokens) };
        StepEstimate { tokens, duration_s }
    }

    /// The way through the steps of the file that takes longest.
    fn critical_path(&self, graph: &Graph, steps: &[StepEstimate]) -> (Vec<String>, f64) {
        let times: BTreeMap<&str, f64> = self
            .steps
            .iter()
            .zip(steps)
            .map(|(step, estimate)| (step.id.as_str(), estimate.duration_s.unwrap_or(0.0)))
            .collect();
        let mut until = vec![0.0_f64; graph.steps.len()];
        let mut before: Vec<Option<usize>> = vec![None; graph.steps.len()];
        for at in graph.order() {
            let latest = graph.steps[at]
                .needs
                .iter()
                .copied()
                .max_by(|one, other| until[*one].total_cmp(&until[*other]));
            before[at] = latest;
            let own = times.get(graph.steps[at].id.as_str()).copied().unwrap_or(0.0);
            until[at] = own + latest.map_or(0.0, |need| until[need]);
        }
        let last = (0..until.len()).max_by(|one, other| until[*one].total_cmp(&until[*other]));
        let way = std::iter::successors(last, |at| before[*at]);
        let mut path: Vec<String> = way
            .map(|at| graph.steps[at].id.clone())
            .filter(|id| times.get(id.as_str()).is_some_and(|time| *time > 0.0))
            .collect();
        path.reverse();
        (path, last.map_or(0.0, |at| until[at]))
    }
}
