//! Reading a spec: text → tree with places → checked values → graph.

mod kinds;
mod link;
mod reader;
mod six_fields;
mod step;
mod top;

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::JobSpec;
use crate::document::{self, Node, Shape};
use crate::problems::{SpecError, SpecErrors};
use reader::Reader;

/// A longer text is no spec. A file of 100,000 short steps is shorter.
pub const LONGEST_SPEC: usize = 4 * 1024 * 1024;
/// Steps of a workflow, those of its loops and sub-workflows among them.
pub const MOST_STEPS: usize = 100_000;
/// Workflows within workflows.
pub const DEEPEST_WORKFLOW: usize = 16;

/// Gives the text of the specs that `workflow:` steps name.
pub trait LoadSpec {
    /// `path` leads from the folder of the first spec and never above it; its parts are joined by `/`. The error
    /// is what a person should read, without the path.
    fn load(&self, path: &str) -> Result<String, String>;
}

/// What was read before: [`JobSpec::parts`].
impl LoadSpec for BTreeMap<String, String> {
    fn load(&self, path: &str) -> Result<String, String> {
        self.get(path).cloned().ok_or_else(|| "is not among the files of this job".to_owned())
    }
}

/// For specs that stand alone.
pub struct LoadNothing;

impl LoadSpec for LoadNothing {
    fn load(&self, _: &str) -> Result<String, String> {
        Err("other files cannot be read here".to_owned())
    }
}

impl JobSpec {
    /// Reads a spec, YAML or JSON. Either everything in it holds, or all that does not is told.
    pub fn read(text: &str, load: &dyn LoadSpec) -> Result<Self, SpecErrors> {
        let mut shelf = Shelf { load, parts: BTreeMap::new(), read: BTreeMap::new() };
        let mut spec = shelf.read_text(text, &mut vec![String::new()])?;
        spec.parts = shelf.parts;
        Ok(spec)
    }
}

/// The specs of one job: each is read once, however many steps run it.
struct Shelf<'l> {
    load: &'l dyn LoadSpec,
    parts: BTreeMap<String, String>,
    read: BTreeMap<String, Arc<JobSpec>>,
}

impl Shelf<'_> {
    /// `way`: the paths of the specs that led here, this one's last.
    fn read_text(&mut self, text: &str, way: &mut Vec<String>) -> Result<JobSpec, SpecErrors> {
        let file = way.last().cloned().unwrap_or_default();
        let result = self.read_document(text, way);
        result.map_err(|errors| errors.in_file(&file))
    }

    fn read_document(&mut self, text: &str, way: &mut Vec<String>) -> Result<JobSpec, SpecErrors> {
        if text.len() > LONGEST_SPEC {
            return Err(whole(format!("is longer than {LONGEST_SPEC} bytes")));
        }
        let root = document::parse(text).map_err(|broken| {
            let mut error = whole(broken.message);
            error.errors[0].line = broken.place.line;
            error.errors[0].column = broken.place.column;
            error
        })?;
        let mut spec = self.read_node(&root, way)?;
        text.clone_into(&mut spec.source);
        spec.sha256 = hex::encode(Sha256::digest(text.as_bytes()));
        Ok(spec)
    }

    fn read_node(&mut self, root: &Node<'_>, way: &mut Vec<String>) -> Result<JobSpec, SpecErrors> {
        let mut reader = Reader::new(root);
        let spec = if six_fields::is_one(root) {
            six_fields::read(&mut reader, self)
        } else {
            top::read(&mut reader, self, way)
        };
        let mut errors = reader.errors;
        match spec {
            Some(spec) if errors.is_empty() => Ok(spec),
            _ => {
                errors.errors.sort_by_key(|error| (error.file.clone(), error.line, error.column));
                Err(errors)
            }
        }
    }

    /// The spec that a step of the last spec of `way` names.
    fn read_named(&mut self, path: &str, way: &mut Vec<String>) -> Result<Arc<JobSpec>, Named> {
        let here = way.last().map_or("", String::as_str);
        let path = beside(here, path).ok_or(Named::Outside)?;
        if let Some(at) = way.iter().position(|passed| *passed == path) {
            let mut circle = way[at..].to_vec();
            circle.push(path);
            return Err(Named::Circle(circle.join(" -> ")));
        }
        if let Some(spec) = self.read.get(&path) {
            return Ok(Arc::clone(spec));
        }
        if way.len() >= DEEPEST_WORKFLOW {
            return Err(Named::TooDeep);
        }
        let text = self.load.load(&path).map_err(Named::NotLoaded)?;
        way.push(path.clone());
        let spec = self.read_text(&text, way).map_err(Named::Broken);
        way.pop();
        let spec = Arc::new(spec?);
        self.parts.insert(path.clone(), text);
        self.read.insert(path, Arc::clone(&spec));
        Ok(spec)
    }

    /// A spec that is written where it is used.
    fn read_inline(&mut self, root: &Node<'_>, way: &mut Vec<String>) -> Result<Arc<JobSpec>, Named> {
        if way.len() >= DEEPEST_WORKFLOW {
            return Err(Named::TooDeep);
        }
        way.push(way.last().cloned().unwrap_or_default());
        let spec = self.read_node(root, way);
        way.pop();
        let mut spec = spec.map_err(Named::Broken)?;
        spec.source = root.to_json().to_string();
        spec.sha256 = hex::encode(Sha256::digest(spec.source.as_bytes()));
        Ok(Arc::new(spec))
    }
}

/// Why a spec that a step names cannot be run by it.
enum Named {
    Outside,
    Circle(String),
    TooDeep,
    NotLoaded(String),
    Broken(SpecErrors),
}

fn whole(message: String) -> SpecErrors {
    let mut errors = SpecErrors::default();
    let (line, column) = (0, 0);
    errors.push(SpecError { file: String::new(), line, column, path: String::new(), message, hint: None });
    errors
}

/// A path beside another, both from the folder of the first spec. `None` where it leads out of that.
fn beside(here: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(['\\', '\0']) || path.contains(':') {
        return None;
    }
    let mut parts: Vec<&str> = here.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Whether a name may be that of a step, a model, a pool or an input.
fn is_name(text: &str, longest: usize) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !text.is_empty() && text.len() <= longest && text.chars().all(fits)
}

/// Whether templates and decisions can name it with a dot.
pub(crate) fn is_identifier(text: &str) -> bool {
    is_name(text, 100) && !text.contains('-') && !text.starts_with(|first: char| first.is_ascii_digit())
}

fn is_collection(node: &Node<'_>) -> bool {
    matches!(node.value, Shape::Map(_))
}
