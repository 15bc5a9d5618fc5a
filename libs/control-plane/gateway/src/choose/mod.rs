//! Which replica gets a request: a pure choice over one snapshot, and why it fell as it did.
//!
//! First everything that cannot take the request is left out, then the strategy decides among the rest. The same
//! question gets the same answer, whatever the order of the candidates.

mod affinity;
mod breaker;
mod chooser;
mod decisions;
mod placement;

use llm_adapters::Problem;
use orch_core::ErrorCode;
use tokio::time::Instant;

pub(crate) use affinity::{Promise, PromptPrefix, ReplicaMemory, Ties};
pub(crate) use breaker::{Breaker, Standing};
pub use chooser::Strategy;
pub(crate) use chooser::{Chooser, Found};
pub use decisions::{Considered, Decision};
pub(crate) use placement::check_placement;

use affinity::Bond;
use placement::is_meant;

use crate::facts::Placement;
use crate::table::ReplicaKey;

/// What a request allows.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// Only this node (`name@node`).
    pub(crate) node: Option<&'w str>,
    pub(crate) placement: &'w Placement,
    /// Replicas that failed this request already.
    pub(crate) tried: &'w [ReplicaKey],
    /// Whether it has to wait where no slot is free.
    pub(crate) needs_slot: bool,
    /// The tokens of the prompt, where they are known: an engine has counted them. A slot has to have room for more.
    pub(crate) context: Option<u64>,
}

/// One replica of the route, as it is at the moment of the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'c> {
    pub(crate) key: &'c ReplicaKey,
    /// Loaded, answering, and not on its way out.
    pub(crate) ready: bool,
    pub(crate) standing: Standing,
    pub(crate) device_mask: Option<&'c str>,
    /// Negative where requests wait inside the engine.
    pub(crate) free_slots: i64,
    pub(crate) slots_total: u32,
    /// Bytes.
    pub(crate) free_vram: Option<u64>,
    /// Tokens that fit one slot.
    pub(crate) context: Option<u64>,
    pub(crate) bond: Bond,
}

/// How to decide among replicas that could all take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Affinity,
    LeastLoaded,
    /// The how-manieth choice this is, from 0.
    RoundRobin(u64),
    /// A number that is as good as any other.
    Random(u64),
}

/// What became of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This candidate.
    Chosen { index: usize, reason: Reason, fallback: bool },
    /// There are some that could take it, but none has a slot free.
    Busy,
    /// None that may take it serves now.
    Unready,
    /// All that serve have failed this request already, or are too small for it.
    Exhausted,
    /// It can go nowhere.
    Refused(Problem),
}

/// What tipped the balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There was no other.
    Only,
    Session,
    Prefix,
    FreeSlots,
    FreeVram,
    LeastLoaded,
    Turn,
    Chance,
    /// All were equal: the first in the order of their names.
    Order,
}

impl Reason {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Reason::Only => "only",
            Reason::Session => "session",
            Reason::Prefix => "prefix",
            Reason::FreeSlots => "free-slots",
            Reason::FreeVram => "free-vram",
            Reason::LeastLoaded => "least-loaded",
            Reason::Turn => "turn",
            Reason::Chance => "chance",
            Reason::Order => "order",
        }
    }
}

/// Chooses among the replicas of a route.
pub(crate) fn choose(wanted: &Wanted<'_>, candidates: &[Candidate<'_>], rule: Rule) -> Choice {
    let allowed = (0..candidates.len()).filter(|&index| is_allowed(wanted, &candidates[index]));
    let (ready, unready): (Vec<usize>, Vec<usize>) = allowed.partition(|&index| candidates[index].ready);
    if ready.is_empty() {
        return nobody_ready(wanted, !unready.is_empty());
    }
    let is_able =
        |candidate: &Candidate<'_>| fits(wanted, candidate) && !wanted.tried.contains(candidate.key);
    let able = ready.into_iter().filter(|&index| is_able(&candidates[index])).collect();
    let able = without_resting(able, candidates);
    if able.is_empty() {
        return Choice::Exhausted;
    }
    let free = able.into_iter().filter(|&index| !wanted.needs_slot || candidates[index].free_slots > 0);
    let free: Vec<usize> = free.collect();
    let (preferred, others): (Vec<usize>, Vec<usize>) =
        free.into_iter().partition(|&index| is_meant(&wanted.placement.prefer, candidates[index].key));
    let fallback = preferred.is_empty() && !wanted.placement.prefer.is_empty();
    match decide(if preferred.is_empty() { others } else { preferred }, candidates, rule) {
        Some((index, reason)) => Choice::Chosen { index, reason, fallback },
        None => Choice::Busy,
    }
}

/// Whether the client's wishes leave it.
fn is_allowed(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> bool {
    let Placement { pin, avoid, device_mask, .. } = wanted.placement;
    wanted.node.is_none_or(|node| candidate.key.node_id == node)
        && (pin.is_empty() || is_meant(pin, candidate.key))
        && !is_meant(avoid, candidate.key)
        && device_mask.as_deref().is_none_or(|mask| candidate.device_mask == Some(mask))
}

/// Whether the prompt fits it, as far as that is known.
fn fits(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> bool {
    wanted.context.is_none_or(|tokens| candidate.context.is_none_or(|context| context > tokens))
}

/// Replicas that keep failing are left out while there is any other, even a busy one: better late than never.
fn without_resting(able: Vec<usize>, candidates: &[Candidate<'_>]) -> Vec<usize> {
    let rests = |index: &usize| candidates[*index].standing == Standing::Resting;
    if able.iter().all(rests) { able } else { able.into_iter().filter(|index| !rests(index)).collect() }
}

fn nobody_ready(wanted: &Wanted<'_>, any_unready: bool) -> Choice {
    let Placement { pin, avoid, device_mask, .. } = wanted.placement;
    if !pin.is_empty() {
        let message = format!("{} is not ready, and the request is pinned to it", pin.join(", "));
        return Choice::Refused(Problem::new(ErrorCode::PoolUnready, message));
    }
    if !any_unready && (!avoid.is_empty() || device_mask.is_some()) {
        let message =
            "no replica is left that the request does not avoid and that has the devices it asks for";
        return Choice::Refused(Problem::new(ErrorCode::PoolUnavailable, message));
    }
    Choice::Unready
}

/// Decides among replicas that could all take the request.
fn decide(mut set: Vec<usize>, candidates: &[Candidate<'_>], rule: Rule) -> Option<(usize, Reason)> {
    if set.len() < 2 {
        return set.first().map(|&index| (index, Reason::Only));
    }
    set.sort_by_key(|&index| candidates[index].key);
    let nth = |number: u64| set[(number % set.len() as u64) as usize];
    match rule {
        Rule::RoundRobin(turn) => Some((nth(turn), Reason::Turn)),
        Rule::Random(number) => Some((nth(number), Reason::Chance)),
        Rule::LeastLoaded => {
            narrow(set, candidates, &[(Reason::LeastLoaded, load), (Reason::FreeSlots, slots)])
        }
        Rule::Affinity => {
            let scores: [(Reason, Score); 4] = [
                (Reason::Session, session),
                (Reason::Prefix, prefix),
                (Reason::FreeSlots, slots),
                (Reason::FreeVram, vram),
            ];
            narrow(set, candidates, &scores)
        }
    }
}

/// What of a candidate is compared; more is better.
type Score = fn(&Candidate<'_>) -> Measure;

/// Moments and numbers in one order; what is not known is least. Of one score all values are of one kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Number(Option<i128>),
    Moment(Option<Instant>),
}

impl Measure {
    fn number(number: impl Into<i128>) -> Self {
        Measure::Number(Some(number.into()))
    }
}

fn session(candidate: &Candidate<'_>) -> Measure {
    Measure::Moment(candidate.bond.session)
}

fn prefix(candidate: &Candidate<'_>) -> Measure {
    Measure::number(candidate.bond.prefix)
}

fn slots(candidate: &Candidate<'_>) -> Measure {
    Measure::number(candidate.free_slots)
}

fn vram(candidate: &Candidate<'_>) -> Measure {
    Measure::Number(candidate.free_vram.map(i128::from))
}

/// The share of its slots that is free, in millionths.
fn load(candidate: &Candidate<'_>) -> Measure {
    Measure::number(i128::from(candidate.free_slots) * 1_000_000 / i128::from(candidate.slots_total.max(1)))
}

/// Keeps the best by each score in turn, until one is left. The score that left it alone is the reason.
fn narrow(
    mut set: Vec<usize>,
    candidates: &[Candidate<'_>],
    scores: &[(Reason, Score)],
) -> Option<(usize, Reason)> {
    for (reason, score) in scores {
        let best = set.iter().map(|&index| score(&candidates[index])).max()?;
        set.retain(|&index| score(&candidates[index]) == best);
        if set.len() == 1 {
            return Some((set[0], *reason));
        }
    }
    // They lie in the order of their names.
    set.first().map(|&index| (index, Reason::Order))
}

#[cfg(test)]
mod tests;
