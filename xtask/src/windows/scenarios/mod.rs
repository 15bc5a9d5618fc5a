//! What is played, in the order in which it is played.

mod configs;
mod daemon;
mod engines;
mod first_steps;
mod gateway;
mod logs;
mod migration;
mod races;
mod workflows;

use std::time::Duration;

use super::scene::Scene;

/// A sentence about behaviour, and the play that shows it.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) play: fn(&Scene<'_>),
}

pub(super) fn all() -> impl Iterator<Item = Scenario> {
    let all = [
        configs::SCENARIOS,
        daemon::SCENARIOS,
        engines::SCENARIOS,
        races::SCENARIOS,
        logs::SCENARIOS,
        gateway::SCENARIOS,
        first_steps::SCENARIOS,
        migration::SCENARIOS,
        workflows::SCENARIOS,
    ]
    .concat();
    all.into_iter().map(|(name, play)| Scenario { name, play })
}

/// A machine that builds other things at the same time is slow.
const SOON: Duration = Duration::from_secs(30);

type Named = (&'static str, fn(&Scene<'_>));
