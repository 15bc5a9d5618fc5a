//! The choice at work: it looks at the replicas as they are now, remembers whose turn it is, and writes down why.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use llm_adapters::Problem;
use orch_core::UnixMillis;
use tokio::time::Instant;

use super::decisions::{Decisions, Ending, Entry, see};
use super::{Candidate, Choice, Rule, Ties, Wanted, choose};
use crate::facts::Facts;
use crate::live::Target;

/// How a replica is chosen among those that could take a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Who knows the session or the beginning of the prompt, then who has most room.
    #[default]
    Affinity,
    RoundRobin,
    /// Who has the largest share of its slots free.
    LeastLoaded,
    Random,
}

impl Strategy {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Strategy::Affinity => "affinity",
            Strategy::RoundRobin => "round-robin",
            Strategy::LeastLoaded => "least-loaded",
            Strategy::Random => "random",
        }
    }
}

/// What a search for a replica found.
pub(crate) enum Found<'t> {
    Target(&'t Arc<Target>),
    /// Some could take it, but none has a slot free.
    Busy,
    /// None that may take it serves now.
    Unready,
    /// All that serve have failed it already, or are too small for it.
    Exhausted,
    /// It can go nowhere.
    Refused(Problem),
}

/// Chooses for every request of one gateway.
pub(crate) struct Chooser {
    strategy: ArcSwap<Strategy>,
    turn: AtomicU64,
    seed: u64,
    decisions: Decisions,
}

impl Default for Chooser {
    fn default() -> Self {
        Self {
            strategy: ArcSwap::default(),
            turn: AtomicU64::new(0),
            seed: RandomState::new().hash_one(()),
            decisions: Decisions::default(),
        }
    }
}

impl Chooser {
    pub(crate) fn set_strategy(&self, strategy: Strategy) {
        self.strategy.store(Arc::new(strategy));
    }

    /// Whether it matters for a choice among so many which of them knows the prompt.
    pub(crate) fn asks_for_ties(&self, targets: usize) -> bool {
        targets > 1 && **self.strategy.load() == Strategy::Affinity
    }

    /// Looks for a replica that can take a request now.
    pub(crate) fn find<'t>(
        &self,
        facts: &Facts,
        wanted: &Wanted<'_>,
        targets: &[&'t Arc<Target>],
    ) -> Found<'t> {
        let now = Instant::now();
        let candidates: Vec<_> = targets.iter().map(|target| candidate(target, &facts.ties, now)).collect();
        let strategy = **self.strategy.load();
        let choice = choose(wanted, &candidates, self.rule(strategy));
        let (found, ending) = match choice {
            Choice::Chosen { index, reason, fallback } => {
                self.turn.fetch_add(1, Ordering::Relaxed);
                targets[index].live.chosen(now);
                (Found::Target(targets[index]), Ending::Placed { index, reason, fallback })
            }
            Choice::Refused(problem) => {
                let why = problem.message.clone();
                (Found::Refused(problem), Ending::Refused(why))
            }
            Choice::Busy => return Found::Busy,
            Choice::Unready => return Found::Unready,
            Choice::Exhausted => return Found::Exhausted,
        };
        let seen = candidates.iter().zip(targets).map(|(candidate, target)| see(target, wanted, candidate));
        self.decisions.write_down(Entry {
            at: UnixMillis::now(),
            request_id: facts.request_id.clone(),
            strategy,
            ending,
            pinned: !wanted.placement.pin.is_empty(),
            attempt: wanted.tried.len() + 1,
            candidates: seen.collect(),
        });
        found
    }

    /// What [`Chooser::find`] would find, without a trace.
    pub(crate) fn look<'t>(
        &self,
        facts: &Facts,
        wanted: &Wanted<'_>,
        targets: &[&'t Arc<Target>],
    ) -> Found<'t> {
        let now = Instant::now();
        let candidates: Vec<_> = targets.iter().map(|target| candidate(target, &facts.ties, now)).collect();
        match choose(wanted, &candidates, self.rule(**self.strategy.load())) {
            Choice::Chosen { index, .. } => Found::Target(targets[index]),
            Choice::Busy => Found::Busy,
            Choice::Unready => Found::Unready,
            Choice::Exhausted => Found::Exhausted,
            Choice::Refused(problem) => Found::Refused(problem),
        }
    }

    pub(crate) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn rule(&self, strategy: Strategy) -> Rule {
        let turn = self.turn.load(Ordering::Relaxed);
        match strategy {
            Strategy::Affinity => Rule::Affinity,
            Strategy::LeastLoaded => Rule::LeastLoaded,
            Strategy::RoundRobin => Rule::RoundRobin(turn),
            Strategy::Random => Rule::Random(scatter(self.seed.wrapping_add(turn))),
        }
    }
}

/// Neighbouring numbers far apart (the finalizer of SplitMix64).
fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn candidate<'c>(target: &'c Target, ties: &Ties, now: Instant) -> Candidate<'c> {
    let replica = &target.replica;
    Candidate {
        key: &replica.key,
        ready: target.usable(),
        standing: target.live.standing(now),
        device_mask: replica.device_mask.as_deref(),
        free_slots: target.free_slots(),
        slots_total: replica.slots_total,
        free_vram: replica.free_vram,
        context: replica.slot_context,
        bond: target.live.memory.bond(ties),
    }
}
