//! Which ready step starts next. Pure: the driver asks, and does what it is told.
//!
//! The longest remaining path goes first, because it decides when the job can end; among equals the file's order.
//! Ready steps wait in *lanes*, one for each combination of limits they need a place of, so a step that gets no
//! place holds up nobody outside its lane, and finding the next one looks at lanes, never at all steps.
//! Nothing starves: each start uses up one of the job's finitely many steps.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// How urgent a ready step is; more is sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    /// Length of the longest path from this step to the end, with the step itself.
    pub(crate) remaining: u64,
    /// Position in the file.
    pub(crate) order: Reverse<u64>,
}

/// Ready steps, by lane.
#[derive(Debug)]
pub(crate) struct ReadyQueue<T> {
    lanes: Vec<BinaryHeap<(Urgency, T)>>,
    /// The most urgent step of each lane that has any.
    heads: BTreeSet<(Urgency, usize)>,
}

impl<T: Ord> ReadyQueue<T> {
    pub(crate) const fn new() -> Self {
        Self { lanes: Vec::new(), heads: BTreeSet::new() }
    }

    pub(crate) fn push(&mut self, lane: usize, urgency: Urgency, step: T) {
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, BinaryHeap::new);
        }
        let before = self.head(lane);
        self.lanes[lane].push((urgency, step));
        self.head_changed(lane, before);
    }

    /// Takes out the step to start next: the most urgent one whose lane has a place, or, where its model is not
    /// loaded, one with a loaded model whose path is nearly as long.
    pub(crate) fn take(
        &mut self,
        mut has_place: impl FnMut(usize) -> bool,
        loaded: impl Fn(usize) -> bool,
    ) -> Option<(usize, Urgency, T)> {
        let mut open = self.heads.iter().rev().filter(|(_, lane)| has_place(*lane));
        let &(longest, most_urgent) = open.next()?;
        let lane = if loaded(most_urgent) {
            most_urgent
        } else {
            let near = open.take_while(|(urgency, _)| nearly_as_long(urgency.remaining, longest.remaining));
            near.map(|(_, lane)| *lane).find(|lane| loaded(*lane)).unwrap_or(most_urgent)
        };
        let before = self.head(lane);
        let (urgency, step) = self.lanes[lane].pop()?;
        self.head_changed(lane, before);
        Some((lane, urgency, step))
    }

    fn head(&self, lane: usize) -> Option<Urgency> {
        self.lanes[lane].peek().map(|(urgency, _)| *urgency)
    }

    fn head_changed(&mut self, lane: usize, before: Option<Urgency>) {
        let after = self.head(lane);
        if before != after {
            before.map(|urgency| self.heads.remove(&(urgency, lane)));
            after.map(|urgency| self.heads.insert((urgency, lane)));
        }
    }
}

/// Within a tenth: waiting for a model to load costs more than starting so little out of turn.
const fn nearly_as_long(remaining: u64, longest: u64) -> bool {
    remaining.saturating_mul(10) >= longest.saturating_mul(9)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urgency(remaining: u64, order: u64) -> Urgency {
        Urgency { remaining, order: Reverse(order) }
    }

    #[test]
    fn equals_start_in_the_files_order() {
        let mut queue = ReadyQueue::new();
        for order in [2, 0, 1] {
            queue.push(0, urgency(1, order), order);
        }
        let taken: Vec<u64> = std::iter::from_fn(|| queue.take(|_| true, |_| false)).map(|it| it.2).collect();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn a_lane_without_a_place_holds_up_nobody_else() {
        let mut queue = ReadyQueue::new();
        queue.push(0, urgency(100, 0), "full");
        queue.push(1, urgency(1, 1), "free");
        assert_eq!(queue.take(|lane| lane == 1, |_| false).unwrap().2, "free");
        assert!(queue.take(|lane| lane == 1, |_| false).is_none());
        assert_eq!(queue.take(|_| true, |_| false).unwrap().2, "full");
        assert!(queue.take(|_| true, |_| false).is_none());
    }

    #[test]
    fn a_loaded_model_goes_first_only_where_its_path_is_nearly_as_long() {
        let mut queue = ReadyQueue::new();
        queue.push(0, urgency(100, 0), "cold");
        queue.push(1, urgency(90, 1), "warm");
        queue.push(2, urgency(89, 2), "warm but short");
        assert_eq!(queue.take(|_| true, |lane| lane > 0).unwrap().2, "warm");
        assert_eq!(queue.take(|_| true, |lane| lane > 0).unwrap().2, "cold");
    }

    proptest! {
        /// Whatever is pushed and taken in whatever order: what comes out is what a plain search would find.
        #[test]
        fn the_most_urgent_step_with_a_place_comes_out(
            moves in proptest::collection::vec((0usize..4, 0u64..5, any::<bool>(), 0u8..16), 1..80),
        ) {
            let mut queue = ReadyQueue::new();
            let mut plain: Vec<(Urgency, usize)> = Vec::new();
            for (order, (lane, remaining, push, places)) in moves.into_iter().enumerate() {
                if push {
                    let urgency = urgency(remaining, order as u64);
                    queue.push(lane, urgency, order);
                    plain.push((urgency, lane));
                    continue;
                }
                let has_place = |lane: usize| places & (1 << lane) != 0;
                let wanted = plain.iter().filter(|(_, lane)| has_place(*lane)).max().copied();
                let got = queue.take(has_place, |_| false).map(|(lane, urgency, _)| (urgency, lane));
                prop_assert_eq!(got, wanted);
                plain.retain(|step| Some(*step) != wanted);
            }
        }
    }
}
