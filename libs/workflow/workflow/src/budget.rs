//! A job's budget: tokens of all its lives, and what happens when they are used up.

use workflow_spec::{Budget, OnExceed};

/// The gate's place among the steps, where somebody is to be asked.
pub const BUDGET_GATE: &str = "budget";
/// The gate's answers.
pub(crate) const CONTINUE: &str = "continue";
pub(crate) const STOP: &str = "stop";

/// Counts tokens against what is allowed. Requests that are under way when the budget runs out are paid for: the
/// count may end above it, and no further request begins.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    budget: Option<Budget>,
    used: u64,
    /// How often somebody has said that it may go on, by as much again each time.
    extensions: u64,
    stopped: bool,
}

/// Whether a request may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Left,
    /// Somebody has to decide first.
    Ask,
    /// The job fails.
    None,
}

impl Meter {
    /// What earlier lives of the job used and were allowed counts on.
    pub(crate) fn new(budget: Option<Budget>, used: u64, extensions: u64) -> Self {
        Self { budget, used, extensions, stopped: false }
    }

    pub(crate) fn spend(&mut self, tokens: u64) {
        self.used = self.used.saturating_add(tokens);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Tokens that may be used by now; `None` where there is no budget.
    pub(crate) fn allowed(&self) -> Option<u64> {
        let budget = self.budget?;
        Some(budget.tokens.saturating_mul(self.extensions.saturating_add(1)))
    }

    pub(crate) fn room(&self) -> Room {
        let (Some(budget), Some(allowed)) = (self.budget, self.allowed()) else { return Room::Left };
        if self.used < allowed {
            return Room::Left;
        }
        match budget.on_exceed {
            OnExceed::Gate if !self.stopped => Room::Ask,
            OnExceed::Gate | OnExceed::Fail => Room::None,
        }
    }

    /// What somebody answered at the gate. Anything but to go on is to stop.
    pub(crate) fn decide(&mut self, choice: &str) {
        if choice == CONTINUE {
            self.extensions = self.extensions.saturating_add(1);
        } else {
            self.stopped = true;
        }
    }

    /// What a step is told that finds no room.
    pub(crate) fn refusal(&self) -> String {
        let allowed = self.allowed().unwrap_or(self.used);
        format!(
            "the job's budget of {allowed} tokens is used up ({} were used); raise budget.tokens and resume",
            self.used
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meter(tokens: u64, on_exceed: OnExceed) -> Meter {
        Meter::new(Some(Budget { tokens, on_exceed }), 0, 0)
    }

    #[test]
    fn a_request_begins_as_long_as_a_token_is_left() {
        let mut meter = meter(100, OnExceed::Fail);
        meter.spend(99);
        assert_eq!(meter.room(), Room::Left);
        meter.spend(50);
        assert_eq!(meter.room(), Room::None);
        assert!(meter.refusal().contains("100 tokens") && meter.refusal().contains("149"));
    }

    #[test]
    fn somebody_who_says_go_on_allows_as_much_again() {
        let mut meter = meter(100, OnExceed::Gate);
        meter.spend(130);
        assert_eq!(meter.room(), Room::Ask);
        meter.decide(CONTINUE);
        assert_eq!((meter.room(), meter.allowed()), (Room::Left, Some(200)));
        meter.spend(70);
        assert_eq!(meter.room(), Room::Ask);
        meter.decide(STOP);
        assert_eq!(meter.room(), Room::None);
    }

    #[test]
    fn without_a_budget_there_is_always_room() {
        let mut meter = Meter::new(None, u64::MAX, 0);
        meter.spend(1);
        assert_eq!(meter.room(), Room::Left);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_life_tokens_were_used(
            tokens in 1_u64..1000, spent in prop::collection::vec(0_u64..500, 0..8), cut in 0_usize..8,
        ) {
            let budget = Budget { tokens, on_exceed: OnExceed::Gate };
            let mut one = Meter::new(Some(budget), 0, 1);
            for tokens in &spent {
                one.spend(*tokens);
            }
            let (before, after) = spent.split_at(cut.min(spent.len()));
            let mut other = Meter::new(Some(budget), before.iter().sum(), 1);
            for tokens in after {
                other.spend(*tokens);
            }
            prop_assert_eq!(one.room(), other.room());
        }
    }
}
