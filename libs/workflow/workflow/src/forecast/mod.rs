//! What a run would do, told before it does anything.
//!
//! The driver itself goes through the workflow, in a folder that is thrown away: what the store knows is taken from
//! there, and where something would have to be done it is written down instead. So a forecast cannot see a step
//! otherwise than a run would.

mod estimate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use workflow_spec::{FailureKind, Graph};

pub use estimate::{Estimate, PastSteps, StepEstimate};

use crate::key::KeyDocument;
use crate::ports::Ports;
use crate::run::{Foresee, Job, RunError, foresee_job};
use crate::{CacheUse, JobId, Manifest, RunFolder, StepState, StepStatus, Store};

/// About so many bytes of a request are a token.
const BYTES_A_TOKEN: u64 = 4;

/// What is known of a workflow's steps before they run: those of the file, and the children that can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    pub steps: Vec<StepForecast>,
}

/// What is known of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepForecast {
    pub id: String,
    pub outlook: Outlook,
    /// Of the request, where that can be told.
    pub key: Option<String>,
    /// About what would be sent.
    pub prompt_tokens: Option<u64>,
}

/// What would become of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Its result is in the store.
    Hit,
    /// It would have to be done.
    Miss,
    /// It only makes a value, or is made of steps whose results are known.
    Value,
    /// It waits for a person, or what it needs does.
    Gate,
    /// What it would do depends on steps that have no result yet.
    Unknown { until: Vec<String> },
    /// Its condition does not hold.
    Skipped,
    /// It would fail before anything is asked.
    Fails { kind: FailureKind, message: String },
}

impl Outlook {
    /// The word for people and programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Value => "value",
            Self::Gate => "gate",
            Self::Unknown { .. } => "unknown",
            Self::Skipped => "skipped",
            Self::Fails { .. } => "fails",
        }
    }

    /// Whether the step costs neither tokens nor time.
    pub const fn is_free(&self) -> bool {
        matches!(self, Self::Hit | Self::Value | Self::Skipped)
    }
}

/// Goes through a workflow without doing anything of it. Providers are asked which models they have, nothing else;
/// the store is read.
pub async fn forecast(job: Job, store: Arc<Store>, ports: Ports) -> Result<Forecast, RunError> {
    let scratch = tempfile::tempdir().map_err(RunError::Scratch)?;
    let id = JobId::fresh(&job.spec.project);
    let folder = RunFolder::create(scratch.path(), &id, &job.spec.project, "a forecast")?;
    let noted = Arc::new(Noted::default());
    let spec = job.spec.clone();
    let manifest = foresee_job(folder, job, store, ports, noted.clone()).await?;
    Ok(assemble(&spec.graph, &manifest, &noted.taken()))
}

/// What the driver would have done.
#[derive(Default)]
struct Noted(Mutex<BTreeMap<String, Foreseen>>);

struct Foreseen {
    key: Option<String>,
    prompt_tokens: Option<u64>,
}

impl Noted {
    fn note(&self, step: &str, foreseen: Foreseen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(step.to_owned(), foreseen);
    }

    fn taken(&self) -> BTreeMap<String, Foreseen> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Foresee for Noted {
    fn action(&self, step: &str, document: &KeyDocument) {
        let prompt_tokens = document.text().len() as u64 / BYTES_A_TOKEN;
        self.note(
            step,
            Foreseen { key: Some(document.key().to_string()), prompt_tokens: Some(prompt_tokens) },
        );
    }

    fn gate(&self, step: &str) {
        self.note(step, Foreseen { key: None, prompt_tokens: None });
    }
}

fn assemble(graph: &Graph, manifest: &Manifest, noted: &BTreeMap<String, Foreseen>) -> Forecast {
    let mut steps: Vec<StepForecast> =
        manifest.steps().iter().map(|step| of_step(step, noted.get(&step.id))).collect();
    let open: BTreeSet<String> =
        steps.iter().filter(|step| !step.outlook.is_free()).map(|step| step.id.clone()).collect();
    for step in &mut steps {
        if let Outlook::Unknown { until } = &mut step.outlook {
            *until = open_needs(graph, &step.id, &open);
        }
    }
    Forecast { steps }
}

fn of_step(step: &StepState, foreseen: Option<&Foreseen>) -> StepForecast {
    let outlook = match (step.status, foreseen) {
        (_, Some(Foreseen { key: None, .. })) => Outlook::Gate,
        (_, Some(_)) => Outlook::Miss,
        (StepStatus::Succeeded, None) if step.cache == Some(CacheUse::Hit) => Outlook::Hit,
        (StepStatus::Succeeded, None) => Outlook::Value,
        (StepStatus::Skipped, None) if step.skipped.as_deref() == Some("condition") => Outlook::Skipped,
        (StepStatus::Failed, None) => {
            let failure = step.failure.as_ref();
            Outlook::Fails {
                kind: failure.and_then(|failure| failure.kind).unwrap_or(FailureKind::Internal),
                message: failure.map(|failure| failure.message.clone()).unwrap_or_default(),
            }
        }
        _ => Outlook::Unknown { until: Vec::new() },
    };
    let key = foreseen.map_or_else(|| step.key.clone(), |foreseen| foreseen.key.clone());
    let prompt_tokens = foreseen.and_then(|foreseen| foreseen.prompt_tokens);
    StepForecast { id: step.id.clone(), outlook, key, prompt_tokens }
}

/// What a step of the file waits for; of a step that is made of others, those of them that have no result yet.
fn open_needs(graph: &Graph, id: &str, open: &BTreeSet<String>) -> Vec<String> {
    let children: Vec<String> = open.iter().filter(|other| is_child(other, id)).cloned().collect();
    if !children.is_empty() {
        return children;
    }
    let Some(step) = graph.steps.iter().find(|step| step.id == id) else { return Vec::new() };
    let needs = step.needs.iter().map(|need| graph.steps[*need].id.clone());
    needs.filter(|need| open.contains(need)).collect()
}

/// Whether a name is that of a step which another is made of.
fn is_child(id: &str, of: &str) -> bool {
    id.strip_prefix(of).is_some_and(|rest| rest.starts_with(['[', '#', '/']))
}
