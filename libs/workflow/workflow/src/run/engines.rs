//! Steps and the models that are loaded: among steps that are as urgent, those go first whose model is there, and the
//! model of the step that comes next is loaded while the one before it is asked. Only hints: a run without somebody who
//! knows what is loaded goes the same way.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::driver::Driver;
use super::nodes::NodeRef;
use crate::Serving;

/// What is loaded changes by seconds; it is looked at no more often than this.
const LOOK_PACE: Duration = Duration::from_millis(50);

/// What a run knows of the engines that serve it.
#[derive(Default)]
pub(super) struct Engines {
    port: Option<Arc<dyn Serving>>,
    loaded: HashSet<String>,
    looked: Option<Instant>,
    /// Models that are being prepared, or wait for it: once each, however many steps need them.
    preparing: Arc<Mutex<HashSet<String>>>,
}

impl Engines {
    pub(super) fn new(port: Option<Arc<dyn Serving>>) -> Self {
        Self { port, ..Self::default() }
    }

    /// Looks what is loaded, unless that was a moment ago.
    pub(super) async fn look(&mut self) {
        let Some(port) = &self.port else { return };
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_PACE) {
            self.loaded = port.loaded().await.into_iter().collect();
            self.looked = Some(Instant::now());
        }
    }

    /// Whether asking this model waits for no load. Where nobody tells, or no model of ours is asked, nothing does.
    pub(super) fn is_loaded(&self, model: Option<&str>) -> bool {
        self.port.is_none() || model.is_none_or(|model| self.loaded.contains(model))
    }
}

impl Driver {
    /// An attempt begins: steps that wait for nothing but its end will ask their models soon. Its own model goes first:
    /// the others are prepared once that one is there.
    pub(super) fn prepare_those_after(&mut self, at: NodeRef) {
        let Some(port) = self.engines.port.clone() else { return };
        let Some(scope) = self.scopes.get(at.scope) else { return };
        let Some(plan) = scope.plan() else { return };
        let model_of = |index: usize| self.limits.local_model(scope.nodes[index].way.lane(0)?);
        let own = model_of(at.index as usize);
        let after = plan.dependents[at.index as usize].iter().copied();
        let soon = after.filter(|&index| scope.nodes[index].missing == 1);
        let wanted: HashSet<&str> = soon.filter_map(model_of).filter(|model| Some(*model) != own).collect();
        for model in wanted.into_iter().filter(|model| !self.engines.is_loaded(Some(model))) {
            let Some(turn) = Turn::take(&self.engines.preparing, model) else { continue };
            self.tasks.spawn(prepare_behind(port.clone(), own.map(str::to_owned), turn));
        }
    }
}

/// A model that nobody else prepares meanwhile.
struct Turn {
    model: String,
    preparing: Arc<Mutex<HashSet<String>>>,
}

impl Turn {
    fn take(preparing: &Arc<Mutex<HashSet<String>>>, model: &str) -> Option<Self> {
        let is_first = locked(preparing).insert(model.to_owned());
        is_first.then(|| Self { model: model.to_owned(), preparing: preparing.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.preparing).remove(&self.model);
    }
}

fn locked(preparing: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    preparing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prepares a model as soon as the one before it is loaded. Ends with the run at the latest.
async fn prepare_behind(port: Arc<dyn Serving>, first: Option<String>, next: Turn) {
    while let Some(first) = &first
        && !port.loaded().await.contains(first)
    {
        tokio::time::sleep(LOOK_PACE).await;
    }
    port.prepare(next.model.clone()).await;
}
