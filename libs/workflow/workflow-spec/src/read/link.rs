//! From what steps name to the graph: needs, and everything named that does not exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kinds::{Kind, UnlinkedLoop};
use super::reader::{Mention, Reader};
use crate::document::Node;
use crate::problems::did_you_mean;
use crate::references::{Family, Reference};
use crate::{FileRule, Graph, InputDeclaration, LoopStep, Step, StepKind};

/// A step whose needs are still names.
pub(super) struct RawStep<'d> {
    pub(super) node: &'d Node<'d>,
    /// Its kind is a placeholder until the graph is made. Nobody else holds it.
    pub(super) step: Arc<Step>,
    pub(super) kind: Option<Kind<'d>>,
    pub(super) needs: Vec<(String, &'d Node<'d>)>,
    /// What the step itself names: it sees the element of its map.
    pub(super) inside: Vec<Mention<'d>>,
    /// What is decided about the step as a whole.
    pub(super) beside: Vec<Mention<'d>>,
}

/// The surroundings of a list of steps.
struct Scope<'s> {
    inputs: &'s BTreeMap<String, InputDeclaration>,
    /// Names that loops and maps outside make.
    locals: Vec<String>,
    /// Whether what is not found may be found further out.
    within: bool,
}

/// What a loop's body names that is not in it.
#[derive(Default)]
struct Escaped<'d> {
    mentions: Vec<Mention<'d>>,
    needs: Vec<(String, &'d Node<'d>)>,
}

pub(super) fn link_document<'d>(
    reader: &mut Reader<'d>,
    raws: Vec<RawStep<'d>>,
    inputs: &BTreeMap<String, InputDeclaration>,
) -> Option<Graph> {
    let scope = Scope { inputs, locals: Vec::new(), within: false };
    let (graph, _) = link(reader, raws, &scope);
    reader.errors.is_empty().then_some(graph)
}

fn link<'d>(reader: &mut Reader<'d>, raws: Vec<RawStep<'d>>, scope: &Scope<'_>) -> (Graph, Escaped<'d>) {
    let level = Level::of(&raws);
    let mut escaped = Escaped::default();
    let nodes: Vec<_> = raws.iter().map(|raw| raw.node).collect();
    let mut steps = Vec::with_capacity(raws.len());
    for (index, raw) in raws.into_iter().enumerate() {
        steps.push(level.link_one(reader, index, raw, scope, &mut escaped));
    }
    let graph = Graph { steps };
    for circle in graph.circles() {
        let node = nodes[circle[0]];
        reader.problem(node, format!("needs itself: {}", graph.spell_circle(&circle)));
    }
    (graph, escaped)
}

/// What one list of steps offers to name.
struct Level {
    ids: HashMap<String, usize>,
    /// Steps by the paths that they write, where these can be told.
    writers: HashMap<String, Vec<usize>>,
    /// Whether some step writes files whose paths only the run can tell.
    writes_unknown: bool,
}

impl Level {
    fn of(raws: &[RawStep<'_>]) -> Self {
        let mut level = Self { ids: HashMap::new(), writers: HashMap::new(), writes_unknown: false };
        for (index, raw) in raws.iter().enumerate() {
            level.ids.insert(raw.step.id.clone(), index);
            each_file_of_raw(raw, &mut |rule| {
                if rule.path.is_literal() {
                    let writers = level.writers.entry(rule.path.source().to_owned()).or_default();
                    if writers.last() != Some(&index) {
                        writers.push(index);
                    }
                } else {
                    level.writes_unknown = true;
                }
            });
        }
        level
    }

    fn link_one<'d>(
        &self,
        reader: &mut Reader<'d>,
        index: usize,
        mut raw: RawStep<'d>,
        scope: &Scope<'_>,
        escaped: &mut Escaped<'d>,
    ) -> Arc<Step> {
        let mut own = locals_of(&raw);
        let kind = match raw.kind.take() {
            Some(Kind::Ready(kind)) => Some(kind),
            Some(Kind::Loop(unlinked)) => {
                own.extend(["iteration".to_owned(), "previous".to_owned()]);
                let locals = scope.locals.iter().chain(&own).cloned().collect();
                let inner = Scope { inputs: scope.inputs, locals, within: true };
                Some(StepKind::Loop(link_body(reader, unlinked, &inner, &mut raw)))
            }
            None => None,
        };
        let mut step = raw.step;
        if let Some(kind) = kind {
            Arc::make_mut(&mut step).kind = kind;
        }
        let mut needs = Needs { level: self, index, step: &step, scope, found: Vec::new() };
        for (id, node) in raw.needs {
            needs.written(reader, id, node, escaped);
        }
        for mention in raw.inside {
            needs.mention(reader, mention, &own, escaped);
        }
        for mention in raw.beside {
            needs.mention(reader, mention, &[], escaped);
        }
        let mut found = needs.found;
        found.sort_unstable();
        found.dedup();
        Arc::make_mut(&mut step).needs = found;
        step
    }
}

/// What a step's own templates see besides the families.
fn locals_of(raw: &RawStep<'_>) -> Vec<String> {
    let map = raw.step.map.iter().flat_map(|map| [map.name.clone(), "index".to_owned()]);
    map.chain(raw.step.samples.map(|_| "sample".to_owned())).collect()
}

/// Links a loop's body; what is named in it and not found there becomes the loop's own.
fn link_body<'d>(
    reader: &mut Reader<'d>,
    unlinked: UnlinkedLoop<'d>,
    scope: &Scope<'_>,
    raw: &mut RawStep<'d>,
) -> LoopStep {
    let UnlinkedLoop { max, until, body, until_mentions } = unlinked;
    let ids = Level::of(&body).ids;
    let (body, out) = link(reader, body, scope);
    raw.needs.extend(out.needs);
    raw.inside.extend(out.mentions);
    raw.inside.extend(until_mentions.into_iter().filter(|mention| match &mention.reference {
        Reference::Known(Family::Steps, id) => !ids.contains_key(id),
        _ => true,
    }));
    LoopStep { max, until, body }
}

/// Finds the needs of one step.
struct Needs<'l> {
    level: &'l Level,
    index: usize,
    step: &'l Step,
    scope: &'l Scope<'l>,
    found: Vec<usize>,
}

impl Needs<'_> {
    fn written<'d>(
        &mut self,
        reader: &mut Reader<'d>,
        id: String,
        node: &'d Node<'d>,
        escaped: &mut Escaped<'d>,
    ) {
        match self.level.ids.get(&id) {
            Some(index) => self.found.push(*index),
            None if self.scope.within => escaped.needs.push((id, node)),
            None => {
                let message = format!("no step is called \"{id}\"");
                match reader.nearest(&id, self.level.ids.keys().map(String::as_str)) {
                    Some(near) => reader.hinted(node, message, did_you_mean(near)),
                    None => reader.problem(node, message),
                }
            }
        }
    }

    fn mention<'d>(
        &mut self,
        reader: &mut Reader<'d>,
        mention: Mention<'d>,
        own: &[String],
        escaped: &mut Escaped<'d>,
    ) {
        match &mention.reference {
            Reference::Known(Family::Steps, id) => match self.level.ids.get(id) {
                Some(index) => self.found.push(*index),
                None => self.step_elsewhere(reader, mention, escaped),
            },
            Reference::Known(Family::Files, path) => match self.level.writers.get(path) {
                Some(writers) => {
                    self.found.extend(writers.iter().filter(|writer| **writer != self.index));
                }
                None if self.scope.within => escaped.mentions.push(mention),
                None if self.level.writes_unknown => {}
                None => {
                    let near = reader.nearest(path, self.level.writers.keys().map(String::as_str));
                    let hint = near.map(|near| did_you_mean(&format!("files['{near}']")));
                    let message = format!("no step writes the file \"{path}\"");
                    reader.problem_at(mention.node, mention.place, message, hint);
                }
            },
            Reference::Known(Family::Inputs, name) => {
                if !self.scope.inputs.contains_key(name) {
                    let near = reader.nearest(name, self.scope.inputs.keys().map(String::as_str));
                    let hint = near.map(|near| did_you_mean(&format!("inputs.{near}")));
                    let message = format!("the workflow declares no input \"{name}\"");
                    reader.problem_at(mention.node, mention.place, message, hint);
                }
            }
            Reference::Known(Family::Secrets, name) => self.secret(reader, &mention, name),
            Reference::Computed(Family::Files) => {}
            Reference::Computed(family) => {
                let word = family.word();
                let message = format!("{word} must be followed by a name, {word}.<name> or {word}['<name>']");
                let hint = "which one is meant must be clear before the job runs".to_owned();
                reader.problem_at(mention.node, mention.place, message, Some(hint));
            }
            Reference::Local(name) => self.local(reader, &mention, name, own),
        }
    }

    fn step_elsewhere<'d>(
        &self,
        reader: &mut Reader<'d>,
        mut mention: Mention<'d>,
        escaped: &mut Escaped<'d>,
    ) {
        let Reference::Known(_, id) = &mention.reference else { return };
        let near = reader.nearest(id, self.level.ids.keys().map(String::as_str)).map(str::to_owned);
        mention.near = mention.near.take().or(near);
        if self.scope.within {
            return escaped.mentions.push(mention);
        }
        let message = format!("no step is called \"{id}\"");
        let hint = mention.near.as_deref().map(did_you_mean);
        reader.problem_at(mention.node, mention.place, message, hint);
    }

    fn secret<'d>(&self, reader: &mut Reader<'d>, mention: &Mention<'d>, name: &str) {
        if mention.decides {
            let message = "a decision sees no secrets".to_owned();
            reader.problem_at(mention.node, mention.place, message, None);
        } else if !self.step.secrets.iter().any(|secret| secret == name) {
            let message = format!("the step does not declare the secret \"{name}\"");
            let hint = format!("secrets: [{name}]");
            reader.problem_at(mention.node, mention.place, message, Some(hint));
        }
    }

    fn local<'d>(&self, reader: &mut Reader<'d>, mention: &Mention<'d>, name: &str, own: &[String]) {
        let known = || own.iter().chain(&self.scope.locals).map(String::as_str);
        if known().any(|local| local == name) {
            return;
        }
        let hint = if self.scope.inputs.contains_key(name) {
            did_you_mean(&format!("inputs.{name}"))
        } else if self.level.ids.contains_key(name) {
            did_you_mean(&format!("steps.{name}.output"))
        } else if let Some(near) =
            reader.nearest(name, known().chain(["steps", "inputs", "files", "secrets"]))
        {
            did_you_mean(near)
        } else {
            "steps.<id>, inputs.<name>, files['<path>'] and secrets.<NAME> are".to_owned()
        };
        let message = format!("\"{name}\" is not known here");
        reader.problem_at(mention.node, mention.place, message, Some(hint));
    }
}

fn each_file_of_raw(raw: &RawStep<'_>, look: &mut dyn FnMut(&FileRule)) {
    raw.step.files.iter().for_each(&mut *look);
    match &raw.kind {
        Some(Kind::Loop(unlinked)) => unlinked.body.iter().for_each(|inner| each_file_of_raw(inner, look)),
        Some(Kind::Ready(StepKind::Workflow(workflow))) => each_file(&workflow.spec.graph, look),
        _ => {}
    }
}

fn each_file(graph: &Graph, look: &mut dyn FnMut(&FileRule)) {
    for step in &graph.steps {
        step.files.iter().for_each(&mut *look);
        match &step.kind {
            StepKind::Loop(repeated) => each_file(&repeated.body, look),
            StepKind::Workflow(workflow) => each_file(&workflow.spec.graph, look),
            _ => {}
        }
    }
}
