//! What can be known of a graph before it runs: who waits for whom, how far each step is from the end, what it
//! takes a place of, and whom it asks. Made once for each graph, however often that runs.

use std::collections::HashMap;
use std::sync::Arc;

use workflow_spec::{Graph, LlmStep, Step, StepKind};

use super::facts::Facts;
use super::limits::{Limits, Wants};
use crate::scope::Positions;

/// A graph, ready to be run.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Arc<Step>>,
    pub(crate) positions: Arc<Positions>,
    /// By position: who needs it.
    pub(crate) dependents: Vec<Vec<usize>>,
    /// By position: weight of the longest path to the end.
    pub(crate) remaining: Vec<u64>,
    /// By position.
    pub(crate) ways: Vec<Way>,
}

/// How a step is done.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// By the driver itself, without a place: values, gates, and steps made of other steps.
    Inline,
    /// In a task, with a place of this lane.
    Program { lane: usize },
    /// In a task; by candidate the lane, and the pair of provider and model.
    Model { candidates: Arc<[Asked]> },
}

/// One candidate of an `llm` step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) lane: usize,
    pub(crate) pair: usize,
}

impl Way {
    /// The lane of an attempt at this candidate.
    pub(crate) fn lane(&self, candidate: usize) -> Option<usize> {
        match self {
            Self::Inline => None,
            Self::Program { lane } => Some(*lane),
            Self::Model { candidates } => candidates.get(candidate).map(|asked| asked.lane),
        }
    }
}

impl Plan {
    pub(crate) fn of(graph: &Graph, provider: &str, limits: &mut Limits, facts: &mut Facts) -> Self {
        let positions = graph.steps.iter().zip(0..).map(|(step, position)| (step.id.clone(), position));
        Self {
            steps: graph.steps.clone(),
            positions: Arc::new(positions.collect::<HashMap<_, _>>()),
            dependents: graph.dependents(),
            remaining: graph.remaining_path(),
            ways: graph.steps.iter().map(|step| way(step, provider, limits, facts)).collect(),
        }
    }
}

fn way(step: &Step, provider: &str, limits: &mut Limits, facts: &mut Facts) -> Way {
    match &step.kind {
        StepKind::Llm(llm) => {
            Way::Model { candidates: candidates(step, llm, provider, limits, facts).collect() }
        }
        StepKind::Run(_) | StepKind::Http(_) => {
            let wants = Wants { pools: step.pools.clone(), ..Wants::default() };
            Way::Program { lane: limits.lane(&wants) }
        }
        StepKind::Gate(_) | StepKind::Workflow(_) | StepKind::Loop(_) | StepKind::Pass(_) => Way::Inline,
    }
}

fn candidates(
    step: &Step,
    llm: &LlmStep,
    provider: &str,
    limits: &mut Limits,
    facts: &mut Facts,
) -> impl Iterator<Item = Asked> {
    llm.candidates.iter().map(move |candidate| {
        let provider = candidate.provider.as_deref().unwrap_or(provider);
        let wants = Wants {
            provider: Some(provider.to_owned()),
            model: candidate.model.clone().or_else(|| Some(llm.model.clone())),
            pools: step.pools.clone(),
        };
        Asked { lane: limits.lane(&wants), pair: facts.pair(provider, candidate.model.as_deref()) }
    })
}
