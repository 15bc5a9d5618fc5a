//! What a step does: each kind's own keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::link::RawStep;
use super::reader::{Fields, Mention, Reader};
use super::step::{self, kind_of};
use super::top::{Surroundings, options, provider};
use super::{Named, Shelf, is_collection, is_name};
use crate::document::{Node, Shape};
use crate::keys;
use crate::problems::{SpecError, did_you_mean};
use crate::{
    Candidate, Decision, GateStep, HttpStep, JobSpec, LlmStep, Message, OutputFormat, OutputShape, PassStep,
    Role, RunStep, StepKind, Template, ValueTemplate, WorkflowStep,
};

/// A kind, of which a loop's body is not linked yet.
pub(super) enum Kind<'d> {
    Ready(StepKind),
    Loop(UnlinkedLoop<'d>),
}

/// A loop whose body's needs are still names.
pub(super) struct UnlinkedLoop<'d> {
    pub(super) max: u32,
    pub(super) until: Decision,
    pub(super) body: Vec<RawStep<'d>>,
    /// What `until` names, which sees the body.
    pub(super) until_mentions: Vec<Mention<'d>>,
}

pub(super) fn read<'d>(
    reader: &mut Reader<'d>,
    fields: Fields<'d>,
    surroundings: &Surroundings,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Option<Kind<'d>> {
    let (word, node) = kind_of(reader, fields)?;
    let output = fields.get("output");
    if let Some(output) = output.filter(|_| !matches!(word, "llm" | "run" | "http")) {
        reader.problem(output, format!("is of no use to {word}"));
    }
    Some(Kind::Ready(match word {
        "llm" => StepKind::Llm(llm(reader, node, output, surroundings)?),
        "run" => StepKind::Run(run(reader, node, output)?),
        "http" => StepKind::Http(http(reader, node, output)?),
        "gate" => StepKind::Gate(gate(reader, node)?),
        "workflow" => StepKind::Workflow(workflow(reader, node, shelf, way)?),
        "loop" => return repeated(reader, node, surroundings, shelf, way),
        _ => StepKind::Pass(pass(reader, node)),
    }))
}

fn llm<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    output: Option<&'d Node<'d>>,
    surroundings: &Surroundings,
) -> Option<LlmStep> {
    let fields = reader.fields(node, &keys::LLM)?;
    let messages = messages(reader, fields);
    let output = match (fields.get("output"), output) {
        (Some(_), Some(second)) => {
            reader.problem(second, "stands inside of llm already");
            None
        }
        (inside, beside) => inside.or(beside).and_then(|node| answer_shape(reader, node)),
    };
    let (model, candidates) = candidates(reader, fields, surroundings);
    let tools = fields.get("tools").map(Node::to_json);
    Some(LlmStep { model, candidates, messages: messages?, output, tools })
}

fn candidates<'d>(
    reader: &mut Reader<'d>,
    fields: Fields<'d>,
    surroundings: &Surroundings,
) -> (String, Arc<[Candidate]>) {
    let of_provider = fields.get("provider").and_then(|node| provider(reader, node));
    let own = fields.get("options").map(|node| options(reader, node)).unwrap_or_default();
    let mut name = String::new();
    let mut candidates = match fields.get("model") {
        Some(node) => {
            reader.text(node).unwrap_or_default().clone_into(&mut name);
            surroundings.candidates(reader, node).unwrap_or_default()
        }
        None => vec![Candidate::default()].into(),
    };
    if let (Some(_), Some(node)) = (&of_provider, fields.get("provider"))
        && surroundings.models.contains_key(&name)
    {
        reader.problem(node, format!("the candidates of models.{name} name their providers"));
    }
    if of_provider.is_some() || !own.is_empty() {
        let changed = candidates.iter().cloned().map(|mut candidate| {
            candidate.provider = of_provider.clone().or(candidate.provider);
            candidate.options = merged(candidate.options, &own);
            candidate
        });
        candidates = changed.collect();
    }
    (name, candidates)
}

fn merged(mut options: Map<String, Value>, own: &Map<String, Value>) -> Map<String, Value> {
    options.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
    options
}

fn messages<'d>(reader: &mut Reader<'d>, fields: Fields<'d>) -> Option<Vec<Message>> {
    let message = |role| move |content| Message { role, content };
    match (fields.get("prompt"), fields.get("messages")) {
        (Some(_), Some(messages)) => reader.problem(messages, "stands beside prompt; one of them is enough"),
        (None, None) => reader.problem(fields.node, "needs what is asked: prompt or messages"),
        (Some(prompt), None) => {
            let system = fields.get("system").and_then(|node| reader.template(node));
            let prompt = reader.template(prompt)?;
            let system = system.map(message(Role::System));
            return Some(system.into_iter().chain([message(Role::User)(prompt)]).collect());
        }
        (None, Some(node)) => {
            if let Some(system) = fields.get("system") {
                reader.problem(system, "goes before prompt; with messages it is the first of them");
            }
            if reader.list(node).is_empty() {
                reader.problem(node, "needs at least one message");
            }
            let read: Vec<_> = reader.list(node).iter().map(|node| one_message(reader, node)).collect();
            return read.into_iter().collect();
        }
    }
    None
}

fn one_message<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<Message> {
    let fields = reader.fields(node, &keys::MESSAGE)?;
    let words = [("system", Role::System), ("user", Role::User), ("assistant", Role::Assistant)];
    let role = fields.get("role").and_then(|node| reader.word(node, &words));
    let content = fields.get("content").and_then(|node| reader.template(node));
    Some(Message { role: role?, content: content? })
}

fn answer_shape<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<OutputShape> {
    let fields = reader.fields(node, &keys::OUTPUT)?;
    if let Some(format) = fields.get("format") {
        reader.hinted(format, "is for run and http", "an llm step takes a schema");
    }
    let repair = fields.get("repair").and_then(|node| reader.small_count(node, 0, 10)).unwrap_or(1);
    let Some(schema) = fields.written("schema") else {
        reader.problem(node, "needs the key schema");
        return None;
    };
    let value = schema.to_json();
    if !matches!(value, Value::Object(_) | Value::Bool(_)) {
        reader.problem(schema, format!("a JSON Schema is a mapping, not {}", schema.kind()));
    }
    Some(OutputShape { schema: Arc::new(value), repair })
}

/// How the text of a program or a service is read.
fn format<'d>(
    reader: &mut Reader<'d>,
    inside: Option<&'d Node<'d>>,
    output: Option<&'d Node<'d>>,
) -> OutputFormat {
    let words = [("text", OutputFormat::Text), ("json", OutputFormat::Json)];
    let beside = output.and_then(|node| reader.fields(node, &keys::OUTPUT)).and_then(|fields| {
        for name in ["schema", "repair"] {
            if let Some(node) = fields.get(name) {
                reader.problem(node, "is for llm");
            }
        }
        fields.get("format")
    });
    if let (Some(_), Some(second)) = (inside, beside) {
        reader.problem(second, "is said twice");
    }
    inside.or(beside).and_then(|node| reader.word(node, &words)).unwrap_or_default()
}

fn run<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>, output: Option<&'d Node<'d>>) -> Option<RunStep> {
    if let Shape::Text { text, .. } = &node.value {
        let words: Vec<_> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        let hint = format!("run: [{}]", words.join(", "));
        reader.hinted(node, "needs a list of arguments, not a shell's line", hint);
        return None;
    }
    if let Shape::List(_) = node.value {
        let argv = arguments(reader, node)?;
        let format = format(reader, None, output);
        return Some(RunStep { argv, env: BTreeMap::new(), stdin: None, format });
    }
    let fields = reader.fields(node, &keys::RUN)?;
    let argv = fields.get("argv").and_then(|node| arguments(reader, node));
    let env = fields.get("env").map(|node| templates(reader, node)).unwrap_or_default();
    if let Some(bad) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        reader.problem(fields.get("env")?, format!("\"{bad}\" cannot name an environment variable"));
    }
    let stdin = fields.get("stdin").and_then(|node| reader.template(node));
    let format = format(reader, fields.get("format"), output);
    Some(RunStep { argv: argv?, env, stdin, format })
}

fn arguments<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<Vec<Template>> {
    let items = reader.list(node);
    if items.is_empty() {
        reader.problem(node, "needs a list with the program and its arguments");
        return None;
    }
    let arguments: Vec<_> = items.iter().map(|item| reader.template(item)).collect();
    arguments.into_iter().collect()
}

fn templates<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> BTreeMap<String, Template> {
    let mut templates = BTreeMap::new();
    for entry in reader.named(node) {
        templates.extend(reader.template(&entry.node).map(|template| (entry.key.to_string(), template)));
    }
    templates
}

fn http<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>, output: Option<&'d Node<'d>>) -> Option<HttpStep> {
    let fields = reader.fields(node, &keys::HTTP)?;
    let url = fields.get("url").and_then(|node| {
        let url = reader.template(node)?;
        let starts = ["http://", "https://", "{{"].iter().any(|start| url.source().starts_with(start));
        if !starts {
            reader.problem(node, "needs a URL with http:// or https://");
        }
        Some(url)
    });
    let methods: Vec<_> = keys::METHODS.iter().map(|method| (*method, *method)).collect();
    let method = fields.get("method").and_then(|node| reader.word(node, &methods)).unwrap_or("GET");
    let headers = fields.get("headers").map(|node| templates(reader, node)).unwrap_or_default();
    let body = fields.get("body").and_then(|node| reader.value_template(node));
    let format = format(reader, fields.get("format"), output);
    Some(HttpStep { method: method.to_owned(), url: url?, headers, body, format })
}

fn gate<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Option<GateStep> {
    let choices = || vec!["approve".to_owned(), "reject".to_owned()];
    if let Shape::Text { .. } = node.value {
        return Some(GateStep { message: reader.template(node)?, choices: choices() });
    }
    let fields = reader.fields(node, &keys::GATE)?;
    let message = fields.get("message").and_then(|node| reader.template(node));
    let choices = fields.get("choices").map_or_else(choices, |node| gate_choices(reader, node));
    Some(GateStep { message: message?, choices })
}

fn gate_choices<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> Vec<String> {
    let mut choices: Vec<String> = Vec::new();
    for item in reader.list(node) {
        let Some(choice) = reader.text(item) else { continue };
        if !is_name(choice, 64) || choices.iter().any(|other| other == choice) {
            reader.hinted(
                item,
                format!("\"{choice}\" cannot be a choice"),
                "letters, digits, _ and -, each once",
            );
        }
        choices.push(choice.to_owned());
    }
    if choices.is_empty() || choices.len() > 20 {
        reader.problem(node, "needs 1 to 20 choices");
    } else if choices.iter().all(|choice| choice == "reject") {
        reader.problem(node, "needs a choice besides reject, which fails the step");
    }
    choices
}

fn pass<'d>(reader: &mut Reader<'d>, node: &'d Node<'d>) -> PassStep {
    if let Shape::Text { .. } = node.value {
        return PassStep { value: reader.value_template(node) };
    }
    let fields = reader.fields(node, &keys::PASS);
    let value = fields.and_then(|fields| fields.written("value"));
    PassStep { value: value.and_then(|node| reader.value_template(node)) }
}

fn repeated<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    surroundings: &Surroundings,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Option<Kind<'d>> {
    let fields = reader.fields(node, &keys::LOOP)?;
    let max = fields.get("max").and_then(|node| reader.small_count(node, 1, 1000));
    let before = std::mem::take(&mut reader.mentions);
    let until = fields.get("until").and_then(|node| reader.decision(node));
    let until_mentions = std::mem::replace(&mut reader.mentions, before);
    let node = fields.get("body")?;
    let body = step::read_all(reader, node, surroundings, shelf, way);
    if body.is_empty() && is_collection(node) {
        reader.problem(node, "needs at least one step");
    }
    Some(Kind::Loop(UnlinkedLoop { max: max?, until: until?, body, until_mentions }))
}

fn workflow<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Option<WorkflowStep> {
    if let Shape::Text { .. } = node.value {
        let spec = sub_spec(reader, node, shelf, way)?;
        check_inputs(reader, node, &spec, &BTreeMap::new());
        return Some(WorkflowStep { spec, inputs: BTreeMap::new() });
    }
    let fields = reader.fields(node, &keys::WORKFLOW)?;
    let mut inputs = BTreeMap::new();
    for entry in fields.get("inputs").map_or(&[][..], |node| reader.named(node)) {
        inputs.extend(reader.value_template(&entry.node).map(|value| (entry.key.to_string(), value)));
    }
    let spec = fields.get("spec").and_then(|node| sub_spec(reader, node, shelf, way))?;
    check_inputs(reader, fields.get("inputs").unwrap_or(node), &spec, &inputs);
    Some(WorkflowStep { spec, inputs })
}

fn sub_spec<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    shelf: &mut Shelf<'_>,
    way: &mut Vec<String>,
) -> Option<Arc<JobSpec>> {
    let read = match node.value {
        Shape::Map(_) => shelf.read_inline(node, way),
        _ => shelf.read_named(reader.text(node)?, way),
    };
    let path = match &node.value {
        Shape::Text { text, .. } => text.as_ref(),
        _ => "the workflow written here",
    };
    match read {
        Ok(spec) => return Some(spec),
        Err(Named::Outside) => {
            let hint = "a path below it, parts joined by /";
            reader.hinted(node, format!("{path} lies outside of the folder of the spec"), hint);
        }
        Err(Named::Circle(circle)) => reader.problem(node, format!("runs itself: {circle}")),
        Err(Named::TooDeep) => {
            reader.problem(node, format!("is nested deeper than {} workflows", super::DEEPEST_WORKFLOW));
        }
        Err(Named::NotLoaded(why)) => reader.problem(node, format!("{path} cannot be read: {why}")),
        Err(Named::Broken(errors)) => {
            if is_collection(node) {
                adopt_inline(reader, node, errors.errors);
            } else {
                errors.errors.into_iter().for_each(|error| reader.errors.push(error));
            }
        }
    }
    None
}

/// Errors of a spec that is written here are errors of this document.
fn adopt_inline(reader: &mut Reader<'_>, node: &Node<'_>, errors: Vec<SpecError>) {
    let (path, _) = reader.root.way_to(node).unwrap_or_default();
    for mut error in errors {
        error.path = format!("{path}.{}", error.path);
        reader.errors.push(error);
    }
}

fn check_inputs<'d>(
    reader: &mut Reader<'d>,
    node: &'d Node<'d>,
    spec: &JobSpec,
    given: &BTreeMap<String, ValueTemplate>,
) {
    for name in given.keys().filter(|name| !spec.inputs.contains_key(*name)) {
        let message = format!("{} takes no input {name}", spec.project);
        match reader.nearest(name, spec.inputs.keys().map(String::as_str)) {
            Some(near) => reader.hinted(node, message, did_you_mean(near)),
            None => reader.problem(node, message),
        }
    }
    for (name, input) in &spec.inputs {
        if input.required && input.default.is_none() && !given.contains_key(name) {
            reader.problem(node, format!("{} needs the input {name}", spec.project));
        }
        let known = given.get(name).and_then(ValueTemplate::as_literal);
        if known.is_some_and(|value| !input.kind.accepts(&value)) {
            reader.problem(node, format!("the input {name} of {} is no {}", spec.project, input.kind.word()));
        }
    }
}
