//! Requests that are held back because the provider said that its allowance is used up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// More models than one provider is asked for.
const MOST_MODELS: usize = 1000;

/// Until when requests are held back, for each model: allowances are counted so.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<String, Instant>>);

impl Holds {
    /// Holds the model's next requests back for this time.
    pub(crate) fn hold(&self, model: &str, wait: Duration) {
        let until = Instant::now() + wait;
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holds.len() >= MOST_MODELS {
            holds.retain(|_, until| *until > Instant::now());
        }
        let held = holds.entry(model.to_owned()).or_insert(until);
        *held = (*held).max(until);
    }

    /// Returns when the model may be asked.
    pub(crate) async fn pass(&self, model: &str) {
        // Somebody may have been told of another wait meanwhile.
        while let Some(until) = self.held_until(model) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn held_until(&self, model: &str) -> Option<Instant> {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = *holds.get(model)?;
        if until > Instant::now() {
            return Some(until);
        }
        holds.remove(model);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_models_own_requests_wait_and_no_longer_than_told() {
        let holds = Holds::default();
        holds.hold("busy", Duration::from_secs(3));
        holds.hold("busy", Duration::from_secs(1));
        let begin = Instant::now();
        holds.pass("idle").await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        holds.pass("busy").await;
        assert!((3.0..3.1).contains(&begin.elapsed().as_secs_f64()));
        holds.pass("busy").await;
        assert!(begin.elapsed().as_secs_f64() < 3.1, "once is enough");
    }
}
