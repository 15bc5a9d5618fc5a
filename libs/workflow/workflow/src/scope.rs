//! What a step sees: its surroundings, answered name by name.
//!
//! A step sees the steps that it needs and no others, so what it makes of them cannot depend on who happened to be
//! faster. Inside a loop's body it sees past the body what the loop itself sees; inside another workflow nothing
//! but that workflow.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::{Map, Value};
use workflow_spec::{Names, Step, StepOutput};

/// Positions of a graph's steps by their ids.
pub(crate) type Positions = HashMap<String, u32>;

/// What all steps of one graph in one place share.
pub(crate) struct Surroundings {
    pub(crate) positions: Arc<Positions>,
    /// By position; set once, when the step ends well.
    pub(crate) outputs: Box<[OnceLock<Arc<StepOutput>>]>,
    pub(crate) inputs: Arc<Map<String, Value>>,
    /// `iteration` and `previous` of a loop.
    pub(crate) locals: Locals,
    /// What the loop around it sees.
    pub(crate) outer: Option<Arc<NodeNames>>,
}

impl Surroundings {
    pub(crate) fn new(positions: Arc<Positions>, inputs: Arc<Map<String, Value>>) -> Self {
        let outputs = (0..positions.len()).map(|_| OnceLock::new()).collect();
        Self { positions, outputs, inputs, locals: Locals::default(), outer: None }
    }
}

/// Names of a step's own. Those added later hide earlier ones of the same name.
#[derive(Clone, Default)]
pub(crate) struct Locals(Option<Arc<Local>>);

struct Local {
    name: String,
    value: Value,
    rest: Locals,
}

impl Locals {
    pub(crate) fn with(&self, name: impl Into<String>, value: Value) -> Self {
        Self(Some(Arc::new(Local { name: name.into(), value, rest: self.clone() })))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let local = self.0.as_ref()?;
        if local.name == name { Some(&local.value) } else { local.rest.get(name) }
    }
}

/// Which steps of its surroundings somebody sees.
#[derive(Clone)]
enum Sees {
    NeedsOf(Arc<Step>),
    /// Whoever decides whether a loop's body goes round again.
    All,
}

/// The names that one step sees.
#[derive(Clone)]
pub(crate) struct NodeNames {
    around: Arc<Surroundings>,
    sees: Sees,
    locals: Locals,
    files: Arc<WrittenFiles>,
}

impl NodeNames {
    pub(crate) fn of_step(
        around: Arc<Surroundings>,
        step: Arc<Step>,
        locals: Locals,
        files: Arc<WrittenFiles>,
    ) -> Self {
        Self { around, sees: Sees::NeedsOf(step), locals, files }
    }

    /// Sees every step of the surroundings.
    pub(crate) fn of_all(around: Arc<Surroundings>, files: Arc<WrittenFiles>) -> Self {
        Self { around, sees: Sees::All, locals: Locals::default(), files }
    }

    pub(crate) fn inputs(&self) -> &Arc<Map<String, Value>> {
        &self.around.inputs
    }

    fn sees(&self, position: u32) -> bool {
        match &self.sees {
            Sees::NeedsOf(step) => step.needs.binary_search(&(position as usize)).is_ok(),
            Sees::All => true,
        }
    }
}

impl Names for NodeNames {
    fn input(&self, name: &str) -> Option<Value> {
        self.around.inputs.get(name).cloned()
    }

    fn step(&self, id: &str) -> Option<Arc<StepOutput>> {
        match self.around.positions.get(id) {
            Some(&position) if self.sees(position) => self.around.outputs[position as usize].get().cloned(),
            Some(_) => None,
            None => self.around.outer.as_ref()?.step(id),
        }
    }

    fn file(&self, path: &str) -> Option<String> {
        self.files.text(path)
    }

    fn local(&self, name: &str) -> Option<Value> {
        let own = self.locals.get(name).or_else(|| self.around.locals.get(name));
        own.cloned().or_else(|| self.around.outer.as_ref()?.local(name))
    }

    /// Whoever renders a step adds its secrets: see [`crate::steps::Sight`].
    fn secret(&self, _name: &str) -> Option<String> {
        None
    }
}

type ReadFile = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The files that steps of this life have written or found in place. What only an earlier life wrote is not seen:
/// the step that writes it may be about to write something else.
pub(crate) struct WrittenFiles {
    read: ReadFile,
    written: RwLock<HashSet<String>>,
}

impl WrittenFiles {
    pub(crate) fn new(read: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), written: RwLock::default() }
    }

    pub(crate) fn add(&self, path: String) {
        self.written.write().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    fn text(&self, path: &str) -> Option<String> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner).contains(path);
        written.then(|| (self.read)(path)).flatten()
    }
}
