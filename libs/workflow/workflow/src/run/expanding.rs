//! Steps that are made of others: the elements of a map, samples, the body of a loop, another workflow. All are one
//! thing here: a node that opens a scope of nodes, and has ended when nothing more happens in that scope.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use tokio::time::Instant;
use workflow_spec::{
    FailureKind, Graph, JobSpec, LoopStep, Names, OnError, StepKind, StepOutput, WorkflowStep,
};

use super::driver::Driver;
use super::nodes::{
    DEEPEST, Ending, Form, Layer, MOST_NODES, Node, NodeRef, NodeResult, Scope, Source, State, Stop,
};
use super::plan::Plan;
use crate::CallFailure;
use crate::key::key_of;
use crate::scope::{Locals, NodeNames, Surroundings};
use crate::store::output_digest;

/// Between the texts of elements.
const BETWEEN: &str = "\n\n";

impl Driver {
    /// The workflow itself.
    pub(super) fn open_root(&mut self) {
        let spec = self.job.spec.clone();
        let plan = self.plan_of(&spec.graph, Arc::as_ptr(&spec) as usize);
        let around = Surroundings::new(plan.positions.clone(), self.job_inputs());
        let root =
            Opening { parent: None, prefix: String::new(), depth: 0, remaining: 0, on_error: spec.on_error };
        self.open_graph(&root, &plan, Arc::new(around), None);
    }

    fn plan_of(&mut self, graph: &Graph, address: usize) -> Arc<Plan> {
        if let Some(plan) = self.plans.get(&address) {
            return plan.clone();
        }
        let plan = Plan::of(graph, &self.job.options.provider, &mut self.limits, &mut self.facts);
        let plan = Arc::new(plan);
        self.plans.insert(address, plan.clone());
        plan
    }

    /// A node that is made of others begins.
    pub(super) fn expand(&mut self, at: NodeRef) {
        if let Err(failure) = self.try_expand(at) {
            self.fail_unbegun(at, &failure);
        }
    }

    fn try_expand(&mut self, at: NodeRef) -> Result<(), CallFailure> {
        let node = self.scopes.node(at);
        let (step, layer) = (node.step.clone(), node.layer);
        if self.scopes.of(at).depth >= DEEPEST {
            let message = format!("steps within steps, more than {DEEPEST} deep");
            return Err(CallFailure::new(FailureKind::Validation, message));
        }
        if layer == Layer::Whole {
            if let Some(map) = &step.map {
                let elements = elements(&map.over.evaluate(&self.names(at)), map.max)?;
                return self.expand_map(at, &map.name, elements);
            }
            if let Some(samples) = step.samples {
                return self.expand_samples(at, samples);
            }
        }
        match &step.kind {
            StepKind::Loop(looped) => self.expand_loop(at, looped),
            StepKind::Workflow(workflow) => self.expand_workflow(at, workflow),
            _ => Ok(()),
        }
    }

    fn expand_map(&mut self, at: NodeRef, name: &str, elements: Vec<Value>) -> Result<(), CallFailure> {
        let locals = self.scopes.node(at).locals.clone();
        let copies = elements.into_iter().enumerate().map(|(index, element)| {
            let locals = locals.with(name, element).with("index", index.into());
            (format!("[{index}]"), locals)
        });
        let count = self.open_copies(at, copies.collect())?;
        self.recorder.map_expanded(&self.scopes.node(at).id.clone(), count);
        self.settle_if_empty(at, count);
        Ok(())
    }

    fn expand_samples(&mut self, at: NodeRef, samples: u32) -> Result<(), CallFailure> {
        let locals = self.scopes.node(at).locals.clone();
        let copies = (0..samples).map(|sample| (format!("#{sample}"), locals.with("sample", sample.into())));
        let count = self.open_copies(at, copies.collect())?;
        self.settle_if_empty(at, count);
        Ok(())
    }

    /// The same step for each set of names.
    fn open_copies(&mut self, at: NodeRef, copies: Vec<(String, Locals)>) -> Result<usize, CallFailure> {
        let count = copies.len();
        self.leave_room_for(count)?;
        self.begin_made_up(at);
        let scope = self.scopes.of(at);
        let node = &scope.nodes[at.index as usize];
        let nodes = copies.into_iter().map(|(suffix, locals)| Node {
            id: format!("{}{suffix}", node.id).into(),
            step: node.step.clone(),
            way: node.way.clone(),
            layer: Layer::Copy,
            locals,
            missing: 0,
            blocked: None,
            remaining: node.remaining,
            state: State::Pending,
            copy_output: OnceLock::new(),
        });
        let copies = Scope {
            parent: Some(at),
            form: Form::Copies,
            around: scope.around.clone(),
            nodes: nodes.collect(),
            depth: scope.depth + 1,
            open: count,
            active: 0,
            on_error: node.step.on_error.unwrap_or(scope.on_error),
            stop: None,
            failure: None,
        };
        let scope = self.scopes.add(copies);
        for index in 0..count as u32 {
            self.enqueue(NodeRef { scope, index });
        }
        Ok(count)
    }

    fn settle_if_empty(&mut self, at: NodeRef, count: usize) {
        if count == 0
            && let Some(scope) = self
                .scopes
                .below(at.scope)
                .into_iter()
                .find(|scope| self.scopes.get(*scope).is_some_and(|found| found.parent == Some(at)))
        {
            self.settle_scope(scope);
        }
    }

    fn expand_loop(&mut self, at: NodeRef, looped: &LoopStep) -> Result<(), CallFailure> {
        self.leave_room_for(looped.body.steps.len())?;
        self.begin_made_up(at);
        self.open_iteration(at, looped, 1, Value::Null);
        Ok(())
    }

    fn open_iteration(&mut self, at: NodeRef, looped: &LoopStep, iteration: u32, previous: Value) {
        let id = self.scopes.node(at).id.clone();
        self.recorder.loop_iterated(&id, iteration);
        let address = std::ptr::from_ref(looped) as usize;
        let plan = self.plan_of(&looped.body, address);
        let outer = self.node_names(at);
        let mut around = Surroundings::new(plan.positions.clone(), outer.inputs().clone());
        around.locals = Locals::default().with("iteration", iteration.into()).with("previous", previous);
        around.outer = Some(Arc::new(outer));
        let opening = self.opening(at, &format!("{id}/{iteration}/"));
        self.open_graph(&opening, &plan, Arc::new(around), Some(iteration));
    }

    fn expand_workflow(&mut self, at: NodeRef, workflow: &WorkflowStep) -> Result<(), CallFailure> {
        let inputs = self.inputs_of(at, workflow)?;
        self.leave_room_for(workflow.spec.graph.steps.len())?;
        self.begin_made_up(at);
        let plan = self.plan_of(&workflow.spec.graph, Arc::as_ptr(&workflow.spec) as usize);
        let around = Surroundings::new(plan.positions.clone(), Arc::new(inputs));
        let id = self.scopes.node(at).id.clone();
        let opening = Opening { on_error: workflow.spec.on_error, ..self.opening(at, &format!("{id}/")) };
        self.open_graph(&opening, &plan, Arc::new(around), None);
        Ok(())
    }

    fn inputs_of(&self, at: NodeRef, workflow: &WorkflowStep) -> Result<Map<String, Value>, CallFailure> {
        let names = self.names(at);
        let mut given = Map::new();
        for (name, value) in &workflow.inputs {
            let value = value.render(&names).map_err(|error| {
                CallFailure::new(FailureKind::Validation, format!("inputs.{name}: {error}"))
            })?;
            given.insert(name.clone(), value);
        }
        accepted(&workflow.spec, given)
    }

    fn opening(&self, at: NodeRef, prefix: &str) -> Opening {
        let scope = self.scopes.of(at);
        let node = &scope.nodes[at.index as usize];
        Opening {
            parent: Some(at),
            prefix: prefix.to_owned(),
            depth: scope.depth + 1,
            remaining: node.remaining,
            on_error: node.step.on_error.unwrap_or(scope.on_error),
        }
    }

    fn open_graph(
        &mut self,
        opening: &Opening,
        plan: &Arc<Plan>,
        around: Arc<Surroundings>,
        iteration: Option<u32>,
    ) {
        let count = plan.steps.len();
        let nodes = plan.steps.iter().enumerate().map(|(index, step)| Node {
            id: if opening.prefix.is_empty() {
                step.id.as_str().into()
            } else {
                format!("{}{}", opening.prefix, step.id).into()
            },
            step: step.clone(),
            way: plan.ways[index].clone(),
            layer: Layer::Whole,
            locals: Locals::default(),
            missing: step.needs.len() as u32,
            blocked: None,
            remaining: opening.remaining.saturating_add(plan.remaining[index]),
            state: State::Pending,
            copy_output: OnceLock::new(),
        });
        let nodes = nodes.collect();
        let form = match iteration {
            None => Form::Graph(plan.clone()),
            Some(iteration) => Form::Iteration(plan.clone(), iteration),
        };
        let scope = self.scopes.add(Scope {
            parent: opening.parent,
            form,
            around,
            nodes,
            depth: opening.depth,
            open: count,
            active: 0,
            on_error: opening.on_error,
            stop: None,
            failure: None,
        });
        for (index, step) in plan.steps.iter().enumerate() {
            if step.needs.is_empty() {
                self.enqueue(NodeRef { scope, index: index as u32 });
            }
        }
        if count == 0 {
            self.settle_scope(scope);
        }
    }

    fn leave_room_for(&self, nodes: usize) -> Result<(), CallFailure> {
        if self.scopes.nodes().saturating_add(nodes) <= MOST_NODES {
            return Ok(());
        }
        let message = format!("the job would have more than {MOST_NODES} steps at once");
        Err(CallFailure::new(FailureKind::Validation, message))
    }

    fn begin_made_up(&mut self, at: NodeRef) {
        self.announce_started(at, 1, "");
        self.scopes.set_state(at, State::Expanded { since: Instant::now() });
    }

    /// A scope in which nothing more happens: what it means for the node that it makes up.
    pub(super) fn conclude(&mut self, scope: &Scope) {
        let Some(at) = scope.parent else { return };
        let State::Expanded { since } = self.scopes.node(at).state else { return };
        if self.foresee.is_some() && scope.nodes.iter().any(|node| node.state.is_left()) {
            return self.leave(at);
        }
        if let Some(failed) = &scope.failure {
            let message = format!("{}: {}", failed.step, failed.message);
            return self.fail_with(at, 1, since, &CallFailure::new(failed.kind, message), None);
        }
        if scope.stop == Some(Stop::FromOutside) && scope.open > 0 || was_cancelled(scope) {
            return self.cancel_made_up(at, since, "the steps that it is made of were not all done");
        }
        match &scope.form {
            Form::Copies => self.conclude_copies(at, since, scope),
            Form::Graph(_) => self.succeed_made_up(at, since, outputs_of_graph(scope)),
            Form::Iteration(_, iteration) => self.conclude_iteration(at, since, scope, *iteration),
        }
    }

    fn conclude_copies(&mut self, at: NodeRef, since: Instant, scope: &Scope) {
        let some_failed = scope.nodes.iter().any(|node| matches!(node.state, State::Ended(Ending::Failed)));
        let none_succeeded = (0..scope.nodes.len()).all(|index| scope.output(index).is_none());
        if some_failed && none_succeeded {
            let message = "every element has failed";
            let failure = CallFailure::new(FailureKind::Tool, message);
            return self.fail_with(at, 1, since, &failure, None);
        }
        self.succeed_made_up(at, since, outputs_of_copies(scope));
    }

    fn conclude_iteration(&mut self, at: NodeRef, since: Instant, scope: &Scope, iteration: u32) {
        let step = self.scopes.node(at).step.clone();
        let StepKind::Loop(looped) = &step.kind else { return };
        let output = outputs_of_graph(scope);
        let names: Arc<dyn Names> = Arc::new(NodeNames::of_all(scope.around.clone(), self.written.clone()));
        match looped.until.holds(&names) {
            Ok(true) => self.succeed_made_up(at, since, output),
            Ok(false) if iteration < looped.max && !self.is_stopped(at) => {
                self.open_iteration(at, looped, iteration + 1, output.json.unwrap_or_default());
            }
            Ok(false) if iteration < looped.max => {
                self.cancel_made_up(at, since, "the job ended before the loop did");
            }
            Ok(false) => {
                let message = format!("`{}` did not hold after {iteration} rounds", looped.until.source());
                let failure = CallFailure::new(FailureKind::Validation, message);
                self.fail_with(at, 1, since, &failure, None);
            }
            Err(error) => {
                let failure = CallFailure::new(FailureKind::Validation, format!("until: {error}"));
                self.fail_with(at, 1, since, &failure, None);
            }
        }
    }

    fn is_stopped(&self, at: NodeRef) -> bool {
        self.scopes.of(at).stop.is_some()
    }

    fn succeed_made_up(&mut self, at: NodeRef, since: Instant, output: StepOutput) {
        let out = output_digest(&output);
        let result = NodeResult {
            key: key_of(&serde_json::json!({"v": 1, "kind": "made", "out": out.as_str()})),
            out,
            output: Arc::new(output),
            source: Source::Made,
            since,
            attempt: 1,
            calls: 0,
            places: None,
            blobs: Vec::new(),
        };
        self.settle(at, result);
    }
}

fn was_cancelled(scope: &Scope) -> bool {
    scope.nodes.iter().any(|node| matches!(node.state, State::Ended(Ending::Cancelled)))
}

/// How a graph is opened.
struct Opening {
    parent: Option<NodeRef>,
    prefix: String,
    depth: u32,
    /// The length of the path from the node that is made up to the end.
    remaining: u64,
    on_error: OnError,
}

fn elements(
    over: &Result<Value, workflow_spec::DecisionError>,
    most: u32,
) -> Result<Vec<Value>, CallFailure> {
    let invalid = |message| Err(CallFailure::new(FailureKind::Validation, message));
    match over {
        Ok(Value::Array(elements)) if elements.len() <= most as usize => Ok(elements.clone()),
        Ok(Value::Array(elements)) => {
            invalid(format!("map.over gives {} elements, and map.max allows {most}", elements.len()))
        }
        Ok(other) => invalid(format!("map.over gives {}, not a list", kind_of(other))),
        Err(error) => invalid(format!("map.over: {error}")),
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The inputs of another workflow, with its defaults.
fn accepted(spec: &JobSpec, mut given: Map<String, Value>) -> Result<Map<String, Value>, CallFailure> {
    let invalid = |message| Err(CallFailure::new(FailureKind::Validation, message));
    for (name, declared) in &spec.inputs {
        match given.get(name) {
            Some(value) if declared.kind.accepts(value) => {}
            Some(_) => return invalid(format!("inputs.{name} is to be {}", declared.kind.word())),
            None => match &declared.default {
                Some(default) => {
                    given.insert(name.clone(), default.clone());
                }
                None if declared.required => return invalid(format!("inputs.{name} is not given")),
                None => {}
            },
        }
    }
    Ok(given)
}

/// JSON of each step by its name, and the last step's text.
fn outputs_of_graph(scope: &Scope) -> StepOutput {
    let mut json = Map::new();
    let mut text = String::new();
    for (index, node) in scope.nodes.iter().enumerate() {
        if let Some(output) = scope.output(index) {
            json.insert(node.step.id.clone(), value_of(output));
            text.clone_from(&output.text);
        }
    }
    StepOutput { text, json: Some(Value::Object(json)) }
}

/// A list with a gap for each copy without an output, and all texts.
fn outputs_of_copies(scope: &Scope) -> StepOutput {
    let outputs = || (0..scope.nodes.len()).map(|index| scope.output(index));
    let json = outputs().map(|output| output.map_or(Value::Null, |output| value_of(output)));
    let texts: Vec<&str> = outputs().flatten().map(|output| output.text.as_str()).collect();
    StepOutput { text: texts.join(BETWEEN), json: Some(Value::Array(json.collect())) }
}

fn value_of(output: &StepOutput) -> Value {
    output.json.clone().unwrap_or_else(|| Value::String(output.text.clone()))
}
