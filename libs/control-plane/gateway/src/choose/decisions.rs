//! Why the latest requests went where they went. Bounded, in memory, for people who wonder.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orch_core::UnixMillis;
use orch_runtime::RequestId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Serialize;

use super::affinity::Bond;
use super::{Candidate, Reason, Standing, Strategy, Wanted, fits, is_allowed};
use crate::live::Target;
use crate::table::ReplicaKey;

const MOST: usize = 256;

/// One choice, as `GET /v2/placement/decisions` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub at: UnixMillis,
    pub request_id: String,
    pub strategy: &'static str,
    /// `placed` or `refused`.
    pub outcome: &'static str,
    /// What tipped the balance, or why it was refused.
    pub reason: String,
    /// Where it went, as `node/pool/replica`.
    pub chosen: Option<String>,
    /// Whether the client had pinned it.
    pub pinned: bool,
    /// Whether the client preferred others, of which none could take it.
    pub fallback: bool,
    /// The how-manieth attempt of its request, from 1.
    pub attempt: usize,
    pub candidates: Vec<Considered>,
}

/// One replica as it was at the moment of a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// `node/pool/replica`.
    pub replica: String,
    /// `possible`, or why it was left out: `unwanted`, `unready`, `tried`, `small` (for
    /// the prompt), `resting` (it kept failing), `busy`.
    pub verdict: &'static str,
    pub free_slots: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_vram_bytes: Option<u64>,
    /// Whether it answered the request's session before.
    pub session: bool,
    /// So many bytes of the prompt should be in its cache.
    pub shared_prefix: u32,
}

/// One choice as it is kept. Words are made of it when somebody looks, not on the way of a request.
pub(super) struct Entry {
    pub(super) at: UnixMillis,
    pub(super) request_id: Option<RequestId>,
    pub(super) strategy: Strategy,
    pub(super) ending: Ending,
    pub(super) pinned: bool,
    pub(super) attempt: usize,
    pub(super) candidates: Vec<Seen>,
}

pub(super) enum Ending {
    /// The candidate of this number got it.
    Placed {
        index: usize,
        reason: Reason,
        fallback: bool,
    },
    Refused(String),
}

pub(super) struct Seen {
    key: Arc<ReplicaKey>,
    verdict: &'static str,
    free_slots: i64,
    free_vram: Option<u64>,
    bond: Bond,
}

/// The latest choices, and how many there were of each kind.
#[derive(Default)]
pub(crate) struct Decisions {
    entries: Mutex<VecDeque<Entry>>,
    counts: Family<DecisionLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DecisionLabels {
    outcome: &'static str,
    pinned: &'static str,
    fallback: &'static str,
}

impl Decisions {
    pub(super) fn write_down(&self, entry: Entry) {
        let word = |yes| if yes { "true" } else { "false" };
        let (outcome, fallback) = match &entry.ending {
            Ending::Placed { fallback, .. } => ("placed", *fallback),
            Ending::Refused(_) => ("refused", false),
        };
        let labels = DecisionLabels { outcome, pinned: word(entry.pinned), fallback: word(fallback) };
        self.counts.get_or_create(&labels).inc();
        let mut entries = self.lock();
        if entries.len() == MOST {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// The newest first.
    pub(crate) fn latest(&self) -> Vec<Decision> {
        self.lock().iter().rev().map(Entry::told).collect()
    }

    /// For the metrics.
    pub(crate) fn counts(&self) -> Family<DecisionLabels, Counter> {
        self.counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn see(target: &Target, wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> Seen {
    let &Candidate { free_slots, free_vram, bond, .. } = candidate;
    Seen { key: Arc::clone(&target.key), verdict: verdict(wanted, candidate), free_slots, free_vram, bond }
}

fn verdict(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> &'static str {
    if !is_allowed(wanted, candidate) {
        "unwanted"
    } else if !candidate.ready {
        "unready"
    } else if wanted.tried.contains(candidate.key) {
        "tried"
    } else if !fits(wanted, candidate) {
        "small"
    } else if candidate.standing == Standing::Resting {
        "resting"
    } else if wanted.needs_slot && candidate.free_slots <= 0 {
        "busy"
    } else {
        "possible"
    }
}

impl Entry {
    fn told(&self) -> Decision {
        let (outcome, reason, chosen, fallback) = match &self.ending {
            Ending::Placed { index, reason, fallback } => {
                let chosen = self.candidates.get(*index).map(|seen| seen.key.to_string());
                ("placed", reason.label().to_owned(), chosen, *fallback)
            }
            Ending::Refused(why) => ("refused", why.clone(), None, false),
        };
        Decision {
            at: self.at,
            request_id: self.request_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            strategy: self.strategy.label(),
            outcome,
            reason,
            chosen,
            pinned: self.pinned,
            fallback,
            attempt: self.attempt,
            candidates: self.candidates.iter().map(Seen::told).collect(),
        }
    }
}

impl Seen {
    fn told(&self) -> Considered {
        Considered {
            replica: self.key.to_string(),
            verdict: self.verdict,
            free_slots: self.free_slots,
            free_vram_bytes: self.free_vram,
            session: self.bond.session.is_some(),
            shared_prefix: self.bond.prefix,
        }
    }
}
