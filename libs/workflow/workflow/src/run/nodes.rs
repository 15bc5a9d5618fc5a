//! The steps of a run as they are: scopes of nodes. A scope is a graph in one place (the workflow itself, another
//! workflow, one iteration of a loop) or the copies of one step (the elements of a map, samples). A node is one
//! step in one scope; one that is made of others leads to a scope below it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use workflow_spec::{FailureKind, OnError, Step, StepKind, StepOutput};

use super::gates::OpenGate;
use super::limits::Places;
use super::plan::{Plan, Way};
use crate::key::{Digest, Key, KeyDocument};
use crate::scope::{Locals, Surroundings};
use crate::steps::Action;
use crate::{Blob, SkipReason};

/// More nodes than this at once are refused: a workflow that needs them is written wrongly.
pub(crate) const MOST_NODES: usize = 100_000;
/// Scopes within scopes.
pub(crate) const DEEPEST: u32 = 16;

/// Names a node for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeRef {
    pub(crate) scope: u32,
    pub(crate) index: u32,
}

/// Nodes that belong together.
pub(crate) struct Scope {
    /// The node that is made of these; `None` for the workflow itself.
    pub(crate) parent: Option<NodeRef>,
    pub(crate) form: Form,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) depth: u32,
    /// Nodes without an end.
    pub(crate) open: usize,
    /// Nodes that were begun and have no end.
    pub(crate) active: usize,
    /// What a failed step does to the others, where it does not say.
    pub(crate) on_error: OnError,
    pub(crate) stop: Option<Stop>,
    /// The first failure that counts.
    pub(crate) failure: Option<Failed>,
}

/// What the nodes of a scope are to each other.
pub(crate) enum Form {
    Graph(Arc<Plan>),
    /// The same step again and again; none needs another.
    Copies,
    /// A loop's body, going round for the so-many-th time.
    Iteration(Arc<Plan>, u32),
}

/// Why no further node of a scope begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// One of its own has failed.
    OwnFailure,
    /// Something around it ends.
    FromOutside,
}

/// A node that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) step: Arc<str>,
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

/// Which part of its step a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Whole,
    /// An element of its map, or one of its samples.
    Copy,
}

/// One step in one place.
pub(crate) struct Node {
    pub(crate) id: Arc<str>,
    pub(crate) step: Arc<Step>,
    pub(crate) way: Way,
    pub(crate) layer: Layer,
    pub(crate) locals: Locals,
    /// Needs that have not ended.
    pub(crate) missing: u32,
    /// The worst end of a need that leaves no output.
    pub(crate) blocked: Option<SkipReason>,
    pub(crate) remaining: u64,
    pub(crate) state: State,
    /// Of the copies of a step; a graph's outputs lie in its surroundings.
    pub(crate) copy_output: OnceLock<Arc<StepOutput>>,
}

/// How far a node is.
pub(crate) enum State {
    /// Waits for its needs, or in the ready queue.
    Pending,
    /// Waits for what is known of its models.
    Asking,
    /// An attempt is under way.
    Running(Box<Work>),
    /// Waits for its next attempt, or in the ready queue for a place to make it.
    Retrying(Box<Work>),
    /// Somebody else asks the very same.
    Following(Box<Work>),
    /// Its files are being written.
    Settling(Box<NodeResult>),
    /// Over, and counts as soon as the journal is on the disk.
    Syncing,
    /// Waits for somebody's decision.
    Deciding(Box<OpenGate>),
    /// Waits until the job may use more tokens.
    Unfunded(Box<Work>),
    /// Made of other nodes, which go on.
    Expanded {
        since: Instant,
    },
    Ended(Ending),
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has an output, wherever that came from.
    Well,
    Skipped(SkipReason),
    Failed,
    Cancelled,
}

/// A node that is worked at.
pub(crate) struct Work {
    pub(crate) since: Instant,
    pub(crate) action: Arc<dyn Action>,
    pub(crate) document: KeyDocument,
    pub(crate) kept: Kept,
    /// Attempts begun.
    pub(crate) attempt: u32,
    /// The last attempt that the journal knows of.
    pub(crate) announced: u32,
    /// Why what was stored under its key was not taken.
    pub(crate) refused: Option<String>,
    /// Something was not known of its models when it was rendered.
    pub(crate) stale: bool,
    /// Somebody has said what became of the effect of an attempt whose outcome was not known.
    pub(crate) is_sure: bool,
    /// Attempts begun at the present candidate.
    pub(crate) tries: u32,
    /// How long it has waited at open circuits.
    pub(crate) at_circuits: Duration,
    pub(crate) candidate: usize,
    /// Requests made.
    pub(crate) calls: u32,
    pub(crate) task: Option<AbortHandle>,
    pub(crate) places: Option<Places>,
}

/// Where a result is kept and looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In the home's store, for every job.
    Shared,
    /// In the run's own.
    Own,
}

/// A node's output with all that is told of it.
pub(crate) struct NodeResult {
    pub(crate) output: Arc<StepOutput>,
    pub(crate) out: Digest,
    pub(crate) key: Key,
    pub(crate) source: Source,
    pub(crate) since: Instant,
    pub(crate) attempt: u32,
    pub(crate) calls: u32,
    pub(crate) places: Option<Places>,
    /// What was stored with it.
    pub(crate) blobs: Vec<Blob>,
}

/// Where an output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Made in this life, or found in the store.
    Made,
    /// An earlier life of the job.
    Resume,
    /// It stands in for that of a step whose condition does not hold.
    Otherwise,
}

impl Node {
    /// Whether it is made of other nodes rather than doing something itself.
    pub(crate) fn is_made_of_others(&self) -> bool {
        let copied = self.step.map.is_some() || self.step.samples.is_some();
        let by_kind = matches!(self.step.kind, StepKind::Loop(_) | StepKind::Workflow(_));
        by_kind || (self.layer == Layer::Whole && copied)
    }
}

impl State {
    /// Whether the driver will hear of it without anybody outside having to decide.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Asking
                | Self::Running(_)
                | Self::Retrying(_)
                | Self::Following(_)
                | Self::Syncing
                | Self::Settling(_)
        )
    }

    /// Whether something happens for it that is about to end.
    pub(crate) const fn is_under_way(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Following(_) | Self::Settling(_) | Self::Syncing)
    }

    /// Whether it was not done for want of something it needs.
    pub(crate) const fn is_left(&self) -> bool {
        matches!(self, Self::Ended(Ending::Skipped(SkipReason::UpstreamFailed)))
    }

    pub(crate) const fn is_active(&self) -> bool {
        self.is_busy() || matches!(self, Self::Expanded { .. })
    }

    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl Scope {
    /// Whether nothing more happens in it.
    pub(crate) const fn is_settled(&self) -> bool {
        self.open == 0 || (self.stop.is_some() && self.active == 0)
    }

    pub(crate) fn output(&self, index: usize) -> Option<&Arc<StepOutput>> {
        match self.form {
            Form::Copies => self.nodes[index].copy_output.get(),
            Form::Graph(_) | Form::Iteration(..) => self.around.outputs[index].get(),
        }
    }

    pub(crate) fn set_output(&self, index: usize, output: Arc<StepOutput>) {
        let place = match self.form {
            Form::Copies => &self.nodes[index].copy_output,
            Form::Graph(_) | Form::Iteration(..) => &self.around.outputs[index],
        };
        // A node ends once, so nothing is there yet.
        let _empty_before = place.set(output);
    }

    pub(crate) const fn plan(&self) -> Option<&Arc<Plan>> {
        match &self.form {
            Form::Graph(plan) | Form::Iteration(plan, _) => Some(plan),
            Form::Copies => None,
        }
    }
}

/// All scopes. A number is never given again, so that late news of a scope that is gone are told from others.
#[derive(Default)]
pub(crate) struct Scopes {
    by_number: Vec<Option<Box<Scope>>>,
    nodes: usize,
    /// Busy nodes of all scopes.
    busy: usize,
}

impl Scopes {
    pub(crate) const fn nodes(&self) -> usize {
        self.nodes
    }

    pub(crate) const fn busy(&self) -> usize {
        self.busy
    }

    pub(crate) fn add(&mut self, scope: Scope) -> u32 {
        self.nodes += scope.nodes.len();
        self.by_number.push(Some(Box::new(scope)));
        self.by_number.len() as u32 - 1
    }

    pub(crate) fn remove(&mut self, scope: u32) -> Option<Box<Scope>> {
        let removed = self.by_number.get_mut(scope as usize)?.take()?;
        self.nodes -= removed.nodes.len();
        Some(removed)
    }

    pub(crate) fn get(&self, scope: u32) -> Option<&Scope> {
        self.by_number.get(scope as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, scope: u32) -> Option<&mut Scope> {
        self.by_number.get_mut(scope as usize)?.as_deref_mut()
    }

    /// The scope of a node that was not removed.
    pub(crate) fn of(&self, node: NodeRef) -> &Scope {
        self.get(node.scope).expect("a scope stays until all its nodes have ended")
    }

    pub(crate) fn of_mut(&mut self, node: NodeRef) -> &mut Scope {
        self.get_mut(node.scope).expect("a scope stays until all its nodes have ended")
    }

    pub(crate) fn node(&self, node: NodeRef) -> &Node {
        &self.of(node).nodes[node.index as usize]
    }

    pub(crate) fn node_mut(&mut self, node: NodeRef) -> &mut Node {
        &mut self.of_mut(node).nodes[node.index as usize]
    }

    /// Changes a node's state and what is counted of it. Answers the state before.
    pub(crate) fn set_state(&mut self, node: NodeRef, state: State) -> State {
        let (busy, active, ended) = (state.is_busy(), state.is_active(), state.has_ended());
        let scope = self.of_mut(node);
        let before = std::mem::replace(&mut scope.nodes[node.index as usize].state, state);
        scope.active = scope.active + usize::from(active) - usize::from(before.is_active());
        scope.open = scope.open + usize::from(before.has_ended()) - usize::from(ended);
        self.busy = self.busy + usize::from(busy) - usize::from(before.is_busy());
        before
    }

    /// Whether there is a node like this.
    pub(crate) fn any(&self, is_it: impl Fn(&State) -> bool) -> bool {
        self.by_number.iter().flatten().flat_map(|scope| &scope.nodes).any(|node| is_it(&node.state))
    }

    /// Gates that wait for a decision.
    pub(crate) fn deciding(&self) -> Vec<NodeRef> {
        let mut found = Vec::new();
        for (number, scope) in self.by_number.iter().enumerate() {
            for (index, node) in scope.iter().flat_map(|scope| scope.nodes.iter().enumerate()) {
                if matches!(node.state, State::Deciding(_)) {
                    found.push(NodeRef { scope: number as u32, index: index as u32 });
                }
            }
        }
        found
    }

    /// The scopes below and with this one, those further down first.
    pub(crate) fn below(&self, scope: u32) -> Vec<u32> {
        let mut found: Vec<u32> = (0..self.by_number.len() as u32)
            .filter(|candidate| self.get(*candidate).is_some() && self.is_within(*candidate, scope))
            .collect();
        found.sort_by_key(|scope| std::cmp::Reverse(self.get(*scope).map_or(0, |scope| scope.depth)));
        found
    }

    fn is_within(&self, mut scope: u32, around: u32) -> bool {
        loop {
            if scope == around {
                return true;
            }
            let parent = self.get(scope).and_then(|scope| scope.parent);
            let Some(parent) = parent else { return false };
            scope = parent.scope;
        }
    }
}
