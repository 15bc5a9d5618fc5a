//! What is known of models: each pair of provider and model is asked about once in a run, when the first step
//! that may need it is ready.

use std::collections::HashMap;
use std::sync::Arc;

use super::nodes::NodeRef;
use crate::{CallFailure, ModelFacts};

/// All pairs of a run.
#[derive(Default)]
pub(crate) struct Facts {
    pairs: Vec<Pair>,
    known: HashMap<(String, Option<String>), usize>,
}

/// One provider and model, and what has become of the question.
pub(crate) struct Pair {
    pub(crate) provider: Arc<str>,
    pub(crate) model: Option<String>,
    state: State,
    waiting: Vec<NodeRef>,
}

enum State {
    Unasked,
    Asked,
    Told(Arc<Told>),
}

/// An answer, or why there is none.
pub(crate) type Told = Result<ModelFacts, CallFailure>;

impl Facts {
    pub(crate) fn pair(&mut self, provider: &str, model: Option<&str>) -> usize {
        let name = (provider.to_owned(), model.map(str::to_owned));
        *self.known.entry(name).or_insert_with_key(|(provider, model)| {
            let (provider, model) = (provider.as_str().into(), model.clone());
            self.pairs.push(Pair { provider, model, state: State::Unasked, waiting: Vec::new() });
            self.pairs.len() - 1
        })
    }

    pub(crate) fn names(&self, pair: usize) -> &Pair {
        &self.pairs[pair]
    }

    pub(crate) fn told(&self, pair: usize) -> Option<&Arc<Told>> {
        match &self.pairs[pair].state {
            State::Told(told) => Some(told),
            State::Unasked | State::Asked => None,
        }
    }

    /// Whether the question has to be asked now. From here on it counts as asked.
    pub(crate) fn ask(&mut self, pair: usize) -> bool {
        let unasked = matches!(self.pairs[pair].state, State::Unasked);
        if unasked {
            self.pairs[pair].state = State::Asked;
        }
        unasked
    }

    /// `node` is named again when the answer is there.
    pub(crate) fn wait(&mut self, pair: usize, node: NodeRef) {
        self.pairs[pair].waiting.push(node);
    }

    /// Those who waited for it.
    pub(crate) fn tell(&mut self, pair: usize, told: Told) -> Vec<NodeRef> {
        let pair = &mut self.pairs[pair];
        pair.state = State::Told(Arc::new(told));
        std::mem::take(&mut pair.waiting)
    }

    /// A failed answer does not last: whoever tries again asks again.
    pub(crate) fn forget_failure(&mut self, pair: usize) {
        if self.told(pair).is_some_and(|told| told.is_err()) {
            self.pairs[pair].state = State::Unasked;
        }
    }
}
