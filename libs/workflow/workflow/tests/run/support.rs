//! A place to run in, and a model that answers as it is told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use workflow::{
    Answer, AnswerPiece, AskModel, AskService, CallFailure, Event, EventType, FinishReason, Halt,
    HearProgram, Job, JobEnd, JobId, JobOptions, ModelFacts, ModelRequest, PortFuture, Ports, ProgramEnd,
    ProgramRequest, RunFolder, RunProgram, ServiceAnswer, ServiceRequest, Store, TokenUse, Watch, run_job,
};
use workflow_spec::{FailureKind, JobSpec, LoadNothing};

/// What is under way when a job is to pause has so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What the model does with one request.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) after: Duration,
    pub(crate) answer: Result<String, CallFailure>,
    pub(crate) finish: FinishReason,
}

impl Act {
    pub(crate) fn say(text: &str) -> Self {
        Self { after: Duration::ZERO, answer: Ok(text.to_owned()), finish: FinishReason::Stop }
    }

    pub(crate) fn fail(kind: FailureKind) -> Self {
        Self { answer: Err(CallFailure::new(kind, "as told")), ..Self::say("") }
    }

    pub(crate) fn after(self, milliseconds: u64) -> Self {
        Self { after: Duration::from_millis(milliseconds), ..self }
    }
}

type Behaviour = Box<dyn FnMut(&ModelRequest, usize) -> Act + Send>;

/// Asks a function what to answer, and remembers what it was asked.
pub(crate) struct Model {
    act: Mutex<Behaviour>,
    pub(crate) asked: Mutex<Vec<ModelRequest>>,
    pub(crate) facts_asked: AtomicUsize,
    now: Arc<AtomicUsize>,
    pub(crate) most_at_once: AtomicUsize,
    /// How many requests were answered.
    pub(crate) answered: Arc<Mutex<usize>>,
}

impl Model {
    /// `act` hears the request, and how many of the same prompt came before.
    pub(crate) fn new(act: impl FnMut(&ModelRequest, usize) -> Act + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            act: Mutex::new(Box::new(act)),
            asked: Mutex::default(),
            facts_asked: AtomicUsize::new(0),
            now: Arc::default(),
            most_at_once: AtomicUsize::new(0),
            answered: Arc::default(),
        })
    }

    /// Answers each prompt with `<prompt>!`.
    pub(crate) fn echo() -> Arc<Self> {
        Self::new(|request, _| Act::say(&format!("{}!", prompt(request))))
    }

    pub(crate) fn prompts(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|request| prompt(request).to_owned()).collect()
    }

    pub(crate) fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

pub(crate) fn prompt(request: &ModelRequest) -> &str {
    request
        .messages
        .iter()
        .rfind(|message| message.role == workflow_spec::Role::User)
        .map_or("", |it| &it.content)
}

struct Present(Arc<AtomicUsize>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AskModel for Model {
    fn facts(&self, provider: &str, model: Option<&str>) -> PortFuture<Result<ModelFacts, CallFailure>> {
        self.facts_asked.fetch_add(1, Ordering::SeqCst);
        let model = model.unwrap_or("first").to_owned();
        let facts = ModelFacts { provider_kind: provider.to_owned(), model, digest: None };
        Box::pin(async move { Ok(facts) })
    }

    fn ask(
        &self,
        request: ModelRequest,
        pieces: Arc<dyn AnswerPiece>,
    ) -> PortFuture<Result<Answer, CallFailure>> {
        let act = {
            let mut asked = self.asked.lock().unwrap();
            let before = asked.iter().filter(|known| prompt(known) == prompt(&request)).count();
            let act = (self.act.lock().unwrap())(&request, before);
            asked.push(request);
            act
        };
        let (present, answered) = (Present(self.now.clone()), self.answered.clone());
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        Box::pin(async move {
            let _present = present;
            tokio::time::sleep(act.after).await;
            let text = act.answer?;
            *answered.lock().unwrap() += 1;
            pieces.piece(&text);
            let usage = TokenUse { prompt: 10, completion: 5, cached: 0 };
            Ok(Answer { text, finish: act.finish, usage, first_token: None, tool_calls: None })
        })
    }
}

/// Programs say their arguments; services are not there.
struct World;

impl RunProgram for World {
    fn run(
        &self,
        request: ProgramRequest,
        _ear: Arc<dyn HearProgram>,
    ) -> PortFuture<Result<ProgramEnd, CallFailure>> {
        Box::pin(async move {
            let stdout = request.argv[1..].join(" ");
            Ok(ProgramEnd { exit_code: Some(0), signal: None, stdout, stderr: String::new() })
        })
    }
}

impl AskService for World {
    fn ask(&self, _request: ServiceRequest) -> PortFuture<Result<ServiceAnswer, CallFailure>> {
        Box::pin(async { Err(CallFailure::new(FailureKind::Connect, "nobody is there")) })
    }
}

struct Nobody;

impl Watch for Nobody {
    fn lines(&self, _journal: &[u8]) {}
    fn piece(&self, _step: &str, _text: &str) {}
}

pub(crate) fn spec(text: &str) -> Arc<JobSpec> {
    Arc::new(JobSpec::read(text, &LoadNothing).unwrap_or_else(|errors| panic!("{errors}")))
}

/// A home with runs and a store.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) options: JobOptions,
    pub(crate) inputs: Map<String, Value>,
    pub(crate) cancel: CancellationToken,
    pub(crate) pause: CancellationToken,
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = JobOptions { provider: "local".to_owned(), ..JobOptions::default() };
        Self {
            folder,
            options,
            inputs: Map::new(),
            cancel: CancellationToken::new(),
            pause: CancellationToken::new(),
        }
    }

    pub(crate) fn run_folder(&self, job: &str) -> PathBuf {
        self.folder.path().join("runs").join(job)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn output(&self, job: &str, path: &str) -> Option<String> {
        std::fs::read_to_string(self.run_folder(job).join("outputs/p").join(path)).ok()
    }

    /// Runs a job that is new, or goes on with one that is there.
    pub(crate) async fn run(&self, job: &str, text: &str, model: &Arc<Model>) -> JobEnd {
        let (runs, id) = (self.folder.path().join("runs"), JobId::new(job).unwrap());
        let spec = spec(text);
        let (folder, past) = if runs.join(job).exists() {
            let (folder, past) = RunFolder::resume(&runs, &id, "test").unwrap();
            (folder, Some(past))
        } else {
            (RunFolder::create(&runs, &id, &spec.project, "test").unwrap(), None)
        };
        let mut inputs = self.inputs.clone();
        for (name, input) in &spec.inputs {
            if let Some(default) = &input.default {
                inputs.entry(name).or_insert_with(|| default.clone());
            }
        }
        let job = Job { spec, inputs, options: self.options.clone() };
        let world = Arc::new(World);
        let ports = Ports {
            models: model.clone(),
            programs: world.clone(),
            services: world,
            serving: None,
            secrets: Arc::new(|_| None),
        };
        let store = Arc::new(Store::home(self.cache()));
        let halt = Halt { cancel: self.cancel.clone(), pause: self.pause.clone(), patience: PATIENCE };
        run_job(folder, past, job, store, ports, Arc::new(Nobody), halt).await.unwrap()
    }

    pub(crate) fn events(&self, job: &str) -> Vec<Event> {
        let text = std::fs::read_to_string(self.run_folder(job).join("events.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The events of the last life, as `type step`.
    pub(crate) fn told(&self, job: &str) -> Vec<String> {
        let events = self.events(job);
        let life = events
            .iter()
            .rposition(|event| matches!(event.kind, EventType::JobStarted | EventType::JobResumed))
            .unwrap();
        let word = |event: &Event| {
            let kind = event.kind.word();
            event.step.as_ref().map_or_else(|| kind.to_owned(), |step| format!("{kind} {step}"))
        };
        events[life..].iter().map(word).collect()
    }

    /// Data of the only such event of a step in the last life.
    pub(crate) fn data(&self, job: &str, kind: EventType, step: &str) -> Map<String, Value> {
        let events = self.events(job);
        let found =
            events.iter().rev().find(|event| event.kind == kind && event.step.as_deref() == Some(step));
        found.unwrap_or_else(|| panic!("no {} of {step}: {:#?}", kind.word(), self.told(job))).data.clone()
    }
}
