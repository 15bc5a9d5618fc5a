//! A validated workflow. Values of these types exist only where everything named in them exists, the graph has
//! no circle, and every template and decision compiles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::{Decision, FailureKind, SpecError, Template, ValueTemplate};

/// A whole workflow.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Names the job and its folder below `outputs/`: letters, digits, `_`, `-`, `.`; never only dots.
    pub project: String,
    pub inputs: BTreeMap<String, InputDeclaration>,
    /// The provider of candidates that name none; `None` leaves it to the command line and the settings.
    pub provider: Option<String>,
    pub limits: JobLimits,
    pub budget: Option<Budget>,
    /// What a failed step does to the rest, where the step does not say.
    pub on_error: OnError,
    pub graph: Graph,
    /// The document as it was written: what a resumed or submitted job is read from again.
    pub source: String,
    /// Hex SHA-256 of `source`.
    pub sha256: String,
    /// The specs of `workflow:` steps by their paths from the folder of this one: with them the document can be
    /// read again where its folder is not. They are a [`crate::LoadSpec`].
    pub parts: BTreeMap<String, String>,
    /// What is accepted and does not do what its writer may expect.
    pub warnings: Vec<SpecError>,
}

impl JobSpec {
    /// Lets the input `model` name the model of candidates that name none. Without such an input, or where it is
    /// not given, the provider's first model is asked.
    #[must_use]
    pub fn with_model_input(mut self, inputs: &Map<String, Value>) -> Self {
        if let Some(Value::String(model)) = inputs.get("model")
            && self.inputs.contains_key("model")
        {
            self.graph.name_models(model);
        }
        self
    }
}

impl Graph {
    fn name_models(&mut self, model: &str) {
        for step in &mut self.steps {
            match &mut Arc::make_mut(step).kind {
                StepKind::Llm(llm) if llm.candidates.iter().any(|candidate| candidate.model.is_none()) => {
                    let named = llm.candidates.iter().cloned().map(|mut candidate| {
                        candidate.model.get_or_insert_with(|| model.to_owned());
                        candidate
                    });
                    llm.candidates = named.collect();
                }
                StepKind::Loop(repeated) => repeated.body.name_models(model),
                _ => {}
            }
        }
    }
}

/// Steps in the order of the file. Each need is an index into `steps`, and following needs always ends.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub steps: Vec<Arc<Step>>,
}

/// One step: what it does, and when and how.
#[derive(Clone, Debug)]
pub struct Step {
    pub id: String,
    pub kind: StepKind,
    /// Written and inferred needs, ascending, without repetition.
    pub needs: Vec<usize>,
    /// Runs only if this holds.
    pub when: Option<Decision>,
    /// The output where `when` does not hold. Without it the step and what needs it are skipped.
    pub otherwise: Option<ValueTemplate>,
    /// Runs once for each element of a list.
    pub map: Option<MapOver>,
    /// Runs so many times with the sample's index in the key; at least 1.
    pub samples: Option<u32>,
    pub retry: RetryPolicy,
    /// Of one attempt. Default 600 s.
    pub timeout: Duration,
    /// Of all attempts and the waits between them.
    pub deadline: Option<Duration>,
    pub cache: CachePolicy,
    pub on_error: Option<OnError>,
    /// Names of pools of `limits.pools` of which the step holds one place each while it runs.
    pub pools: Vec<String>,
    /// Names of environment variables that the step's templates may read.
    pub secrets: Vec<String>,
    pub effect: Effect,
    pub files: Vec<FileRule>,
}

/// What a step does. Exactly one.
#[derive(Clone, Debug)]
pub enum StepKind {
    Llm(LlmStep),
    Run(RunStep),
    Http(HttpStep),
    Gate(GateStep),
    Workflow(WorkflowStep),
    Loop(LoopStep),
    Pass(PassStep),
}

impl StepKind {
    /// The word in specs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Llm(_) => "llm",
            Self::Run(_) => "run",
            Self::Http(_) => "http",
            Self::Gate(_) => "gate",
            Self::Workflow(_) => "workflow",
            Self::Loop(_) => "loop",
            Self::Pass(_) => "pass",
        }
    }
}

/// Asks a model.
#[derive(Clone, Debug)]
pub struct LlmStep {
    /// The name in `models`, or a model's own name.
    pub model: String,
    /// Whom to ask, in this order; never empty.
    pub candidates: Arc<[Candidate]>,
    /// System text and prompt as messages; `messages` where the step writes its own.
    pub messages: Vec<Message>,
    pub output: Option<OutputShape>,
    /// Tool definitions, passed to the provider as they are.
    pub tools: Option<Value>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub role: Role,
    pub content: Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One model at one provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// `None`: the job's provider.
    pub provider: Option<String>,
    /// `None`: the first that the provider lists.
    pub model: Option<String>,
    /// Semantic options (`temperature`, `top_p`, `seed`, `max_tokens`, `stop` …), passed on and part of the key.
    pub options: Map<String, Value>,
    /// The failures of the candidate before it that lead here. Empty: timeout, connect, overloaded, circuit_open.
    pub on: Vec<FailureKind>,
}

/// What an answer must look like.
#[derive(Clone, Debug)]
pub struct OutputShape {
    /// JSON Schema.
    pub schema: Arc<Value>,
    /// How often an answer that does not fit is sent back with the reason. 0 to 10, default 1.
    pub repair: u32,
}

/// Runs a program: an argument list, never a shell string.
#[derive(Clone, Debug)]
pub struct RunStep {
    pub argv: Vec<Template>,
    pub env: BTreeMap<String, Template>,
    pub stdin: Option<Template>,
    pub format: OutputFormat,
}

/// Asks an HTTP service.
#[derive(Clone, Debug)]
pub struct HttpStep {
    pub method: String,
    pub url: Template,
    pub headers: BTreeMap<String, Template>,
    pub body: Option<ValueTemplate>,
    pub format: OutputFormat,
}

/// Waits for a human decision and holds no slot meanwhile.
#[derive(Clone, Debug)]
pub struct GateStep {
    pub message: Template,
    /// At least one. Default `approve`, `reject`; `reject` fails the step, any other is its output.
    pub choices: Vec<String>,
}

/// Runs another workflow's steps with inputs of its own.
#[derive(Clone, Debug)]
pub struct WorkflowStep {
    pub spec: Arc<JobSpec>,
    pub inputs: BTreeMap<String, ValueTemplate>,
}

/// Runs its body again and again until the decision holds, at most `max` times.
#[derive(Clone, Debug)]
pub struct LoopStep {
    /// 1 to 1000.
    pub max: u32,
    pub until: Decision,
    pub body: Graph,
}

/// Does nothing but make a value.
#[derive(Clone, Debug)]
pub struct PassStep {
    pub value: Option<ValueTemplate>,
}

/// A list, and the name under which a step sees its element.
#[derive(Clone, Debug)]
pub struct MapOver {
    pub over: Decision,
    /// Default `item`. The position is `index`.
    pub name: String,
    /// More elements than this fail the step. Default 1000, at most 100,000.
    pub max: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    #[default]
    Text,
    Json,
}

/// When a failed attempt is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further tries after the first. Default 2, at most 100.
    pub max: u32,
    /// The first delay; it doubles from try to try, with jitter. Default 1 s.
    pub base: Duration,
    /// The longest delay of our own. A provider's `Retry-After` may be longer, up to an hour. Default 30 s.
    pub cap: Duration,
    /// Default connect, rate_limit, overloaded.
    pub on: Vec<FailureKind>,
}

/// Whether a step's result may come from an earlier run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// As the kind does it: `llm` yes, everything else no.
    #[default]
    OfKind,
    On,
    Off,
    /// The key of Unified Orchestrator v2.1.
    SeedV21,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Running steps finish, no further one starts.
    #[default]
    Drain,
    /// Running steps are ended at once.
    Cancel,
    /// Whatever does not need the failed step goes on.
    Continue,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    #[default]
    None,
    /// The step changes something out there: never repeated on an unknown outcome.
    External,
}

/// One file that a step writes when it succeeds.
#[derive(Clone, Debug)]
pub struct FileRule {
    /// Below `outputs/<project>/`.
    pub path: Template,
    pub from: FileSource,
    pub mode: WriteMode,
}

#[derive(Clone, Debug)]
pub enum FileSource {
    /// `output.text`
    Text,
    /// `output.code`: the first fenced block.
    Code,
    /// `output.json`, or a field of it: `output.files.main`.
    Json(Vec<String>),
    /// `file:<path>`: what a command left in its working folder.
    Working(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Fails if the file exists with other content.
    #[default]
    CreateNew,
    Overwrite,
    Append,
}

/// How much may happen at once. `None` and absent names: no limit of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobLimits {
    /// Steps at once; the command line's `--concurrency` goes before it; default 4.
    pub steps: Option<u32>,
    /// The whole job's wall time.
    pub wall: Option<Duration>,
    /// Requests in flight by provider.
    pub providers: BTreeMap<String, u32>,
    /// Requests in flight by model name.
    pub models: BTreeMap<String, u32>,
    /// Places of named pools.
    pub pools: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Prompt and completion tokens of the whole job. Answers from the cache cost nothing.
    pub tokens: u64,
    pub on_exceed: OnExceed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExceed {
    #[default]
    Fail,
    /// The job waits at the gate `budget` until somebody decides.
    Gate,
}

/// An input that the workflow takes.
#[derive(Clone, Debug, PartialEq)]
pub struct InputDeclaration {
    pub kind: InputType,
    pub required: bool,
    pub default: Option<Value>,
    pub description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    String,
    Integer,
    Number,
    Boolean,
    /// Any JSON: arrays and objects are written as JSON or YAML.
    Json,
    /// A path whose text is read: `{path, text, sha256}`.
    File,
    /// A glob whose files are read, sorted by path: a list of the same.
    Files,
}

impl InputType {
    /// The word in specs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::File => "file",
            Self::Files => "files",
        }
    }

    /// Whether a value may be given for it. For files that is the path or pattern, or what was read.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Json => true,
            Self::File => value.is_string() || value.is_object(),
            Self::Files => value.is_string() || value.is_array(),
        }
    }
}
