//! The end of the process that runs the job, told in time: no further step begins, what is under way gets a while, and
//! the rest is left for the job's next life.

use tokio::time::Instant;

use super::driver::Driver;
use super::nodes::State;
use super::{Halt, JobOutcome};

pub(super) struct Pause {
    halt: Halt,
    /// When what is under way then is left; `None` as long as nobody wants a pause.
    until: Option<Instant>,
}

impl Pause {
    pub(super) const fn new(halt: Halt) -> Self {
        Self { halt, until: None }
    }

    /// Sees whether it is wanted by now.
    pub(super) fn look(&mut self) {
        if self.until.is_none() && self.halt.pause.is_cancelled() {
            self.until = Some(Instant::now() + self.halt.patience);
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.until
    }

    pub(super) async fn wanted(&self) {
        self.halt.pause.cancelled().await;
    }
}

impl Driver {
    /// Whether the job is to be left as it is now. One that came to its end meanwhile has ended.
    pub(super) fn left(&self) -> Option<JobOutcome> {
        let until = self.pause.due()?;
        let is_left = until <= Instant::now() || !self.scopes.any(State::is_under_way);
        is_left.then_some(JobOutcome::Paused)
    }
}
