//! The wall time of one life of a job. Time in which nothing went on because people had to decide does not count.
//! Pure.

use std::time::Duration;

use tokio::time::Instant;

pub(super) struct Wall {
    limit: Option<Duration>,
    began: Instant,
    rest: Duration,
}

impl Wall {
    pub(super) const fn new(limit: Option<Duration>, began: Instant) -> Self {
        Self { limit, began, rest: Duration::ZERO }
    }

    /// When the time is over, unless nothing goes on before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.began.checked_add(self.limit?)?.checked_add(self.rest)
    }

    /// For so long nothing went on.
    pub(super) fn rested(&mut self, so_long: Duration) {
        self.rest = self.rest.saturating_add(so_long);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_at_gates_does_not_count() {
        let began = Instant::now();
        let mut wall = Wall::new(Some(Duration::from_mins(1)), began);
        assert_eq!(wall.due(), Some(began + Duration::from_mins(1)));
        wall.rested(Duration::from_hours(2));
        assert_eq!(wall.due(), Some(began + Duration::from_mins(121)));
        assert_eq!(Wall::new(None, began).due(), None);
        assert_eq!(Wall::new(Some(Duration::MAX), began).due(), None, "that never comes");
    }
}
