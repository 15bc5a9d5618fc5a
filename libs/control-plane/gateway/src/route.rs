//! From the name that a request gives to the replicas that may serve it.

use std::sync::Arc;
use std::time::Duration;

use llm_adapters::Problem;
use orch_core::{ErrorCode, Status};

use crate::choose::{Found, PromptPrefix, Ties, Wanted, check_placement};
use crate::facts::Facts;
use crate::live::{Snapshot, Target};
use crate::table::{Loadable, ReplicaKey, RoutedInstance};

/// How long a client is asked to wait for something that is on its way, and for something that somebody has
/// to do.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(10);

/// The instances that a request may reach.
pub(crate) struct Route<'s, 'm> {
    snapshot: &'s Snapshot,
    indices: Vec<usize>,
    /// Only this node (`name@node`).
    pub(crate) node: Option<&'m str>,
}

impl<'s> Route<'s, '_> {
    pub(crate) fn targets(&self) -> Vec<&'s Arc<Target>> {
        self.indices.iter().flat_map(|&index| &self.snapshot.targets[index]).collect()
    }

    /// Refuses a request that is pinned to something that cannot have it, and finds out what ties the others to
    /// the replicas of this route.
    pub(crate) fn place(&self, facts: &mut Facts, path: &str, body: &[u8]) -> Result<(), Problem> {
        check_placement(&facts.placement, self.snapshot, &self.indices)?;
        if self.snapshot.chooser.asks_for_ties(self.targets().len()) {
            let prefix = PromptPrefix::of_request(path, body);
            facts.ties = Arc::new(Ties::new(facts.session.as_deref(), prefix));
        }
        Ok(())
    }

    /// Looks for a replica that can take a request now; `needs_slot` if it is to wait where no slot is free.
    pub(crate) fn find(&self, facts: &Facts, tried: &[ReplicaKey], needs_slot: bool) -> Found<'s> {
        self.snapshot.chooser.find(facts, &self.wanted(facts, tried, needs_slot), &self.targets())
    }

    /// The same without a choice: nothing comes of it, and nothing is written down.
    pub(crate) fn look(&self, facts: &Facts, tried: &[ReplicaKey], needs_slot: bool) -> Found<'s> {
        self.snapshot.chooser.look(facts, &self.wanted(facts, tried, needs_slot), &self.targets())
    }

    fn wanted<'w>(&'w self, facts: &'w Facts, tried: &'w [ReplicaKey], needs_slot: bool) -> Wanted<'w> {
        let placement = &facts.placement;
        Wanted { node: self.node, placement, tried, needs_slot, context: facts.prompt_tokens }
    }

    /// Whether the node that it insists on is one that could have it. Without that, every word behind an `@` would
    /// have a queue of its own while nothing is loaded.
    pub(crate) fn is_node_known(&self) -> bool {
        let is_known = |node: &str| self.snapshot.table.nodes.iter().any(|it| it.id == node && it.online);
        self.node.is_none_or(is_known)
    }

    /// Whether an instance of it is on its way, or comes when a request waits for it.
    pub(crate) fn is_loadable(&self) -> bool {
        self.instances().any(|instance| instance.loadable != Loadable::No)
    }

    /// Whether a replica may serve both.
    pub(crate) fn overlaps(&self, other: &Route<'_, '_>) -> bool {
        self.indices.iter().any(|index| other.indices.contains(index))
    }

    pub(crate) fn indices(&self) -> &[usize] {
        &self.indices
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &'s RoutedInstance> {
        self.indices.iter().map(|&index| &self.snapshot.table.instances[index])
    }

    /// Why no replica of this route can be tried.
    pub(crate) fn unavailable(&self) -> Problem {
        if let Some(node) = self.node
            && !self.targets().iter().any(|target| target.replica.key.node_id == node)
        {
            return Problem::new(
                ErrorCode::NodeUnavailable,
                format!("node {} does not have it", shown(node)),
            );
        }
        // Of several instances behind one alias the most hopeful one speaks.
        let speaker = self.instances().min_by_key(|instance| hopelessness(instance.status));
        speaker.map_or_else(|| Problem::new(ErrorCode::PoolUnavailable, "no instance is left"), state_problem)
    }
}

/// Finds the route of a model name; without a name, the only instance there is.
pub(crate) fn find_route<'s, 'm>(
    snapshot: &'s Snapshot,
    model: Option<&'m str>,
) -> Result<Route<'s, 'm>, Problem> {
    let Some(model) = model else { return only_instance(snapshot) };
    match snapshot.table.find(model) {
        Some((indices, node)) => Ok(Route { snapshot, indices: indices.to_vec(), node }),
        None => Err(Problem::new(
            ErrorCode::ModelNotFound,
            format!("model {} is not known here; see GET /v1/models", shown(model)),
        )
        .param("model")),
    }
}

fn only_instance<'m>(snapshot: &Snapshot) -> Result<Route<'_, 'm>, Problem> {
    match snapshot.table.instances.len() {
        1 => Ok(Route { snapshot, indices: vec![0], node: None }),
        0 => Err(Problem::new(
            ErrorCode::ModelNotFound,
            "there is no instance yet; make one with `llama-orch init`",
        )),
        count => Err(Problem::new(
            ErrorCode::InvalidParams,
            format!("name a `model`: there are {count} instances to choose from"),
        )
        .param("model")),
    }
}

fn state_problem(instance: &RoutedInstance) -> Problem {
    let name = &instance.name;
    let (message, wait) = match instance.status {
        Status::Stopped => (format!("{name} is stopped; start it with `llama-orch up {name}`"), LATER),
        Status::Stopping => (format!("{name} is being stopped; start it with `llama-orch up {name}`"), LATER),
        Status::Starting => (format!("{name} is starting; try again soon"), SOON),
        Status::Running => (format!("{name} does not answer now; see `llama-orch health {name}`"), SOON),
        Status::Crashed | Status::Error => (
            format!(
                "{name} has failed; see `llama-orch logs {name}`, then start it with `llama-orch up {name}`"
            ),
            LATER,
        ),
        Status::Unknown => (format!("{name} is on a node that cannot be reached"), LATER),
    };
    Problem::new(ErrorCode::ModelNotAvailable, message).retry_after(wait)
}

/// How little a request may hope for from a replica in this state: of several, the least hopeless speaks for all.
pub const fn hopelessness(status: Status) -> u8 {
    match status {
        Status::Running => 0,
        Status::Starting => 1,
        Status::Stopping | Status::Stopped => 2,
        Status::Unknown => 3,
        Status::Crashed | Status::Error => 4,
    }
}

/// A client's word, short and escaped, so that it can stand in a message.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let short: String = text.chars().take(SHOWN).collect();
    format!("{short:?}")
}
