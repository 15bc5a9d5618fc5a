//! What is played, in the order in which it is played.

mod configs;
mod daemon;

use super::scene::Scene;

/// A sentence about behaviour, and the play that shows it.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) play: fn(&Scene<'_>),
}

pub(super) fn all() -> impl Iterator<Item = Scenario> {
    let all = [configs::SCENARIOS, daemon::SCENARIOS].concat();
    all.into_iter().map(|(name, play)| Scenario { name, play })
}

type Named = (&'static str, fn(&Scene<'_>));
