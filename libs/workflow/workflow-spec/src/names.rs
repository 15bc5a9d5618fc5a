//! What templates and decisions may ask of a running workflow.

use std::sync::Arc;

use serde_json::Value;

use crate::StepOutput;

/// The values that a step can see. Whoever runs the workflow owns them; a template asks only for what it names.
pub trait Names: Send + Sync {
    /// A declared input of the workflow: `inputs.<name>`.
    fn input(&self, name: &str) -> Option<Value>;
    /// The output of a step that has succeeded: `steps.<id>.output`.
    fn step(&self, id: &str) -> Option<Arc<StepOutput>>;
    /// The text of a file that a step has written, by its path below the project's outputs: `files['<path>']`.
    fn file(&self, path: &str) -> Option<String>;
    /// A name of the step's own surroundings: the element of a map, `index`, `sample`, `iteration`, `previous`.
    fn local(&self, name: &str) -> Option<Value>;
    /// A secret that the step declares: `secrets.<NAME>`. Steps that declare none see none.
    fn secret(&self, name: &str) -> Option<String>;
}
