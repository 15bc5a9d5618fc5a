//! Why a step ran, or did not: its request beside that of the step's last earlier result.

mod compare;
mod history;
#[cfg(test)]
mod tests;
mod words;

use orch_core::{ExitCode, Failure, UnixMicros};
use serde::Serialize;
use serde_json::Value;
use workflow_spec::{FailureKind, nearest};

use crate::key::{Key, KeyDocument};
use crate::store::Store;
use crate::views::{Runs, SelectRunError, TailError};
use crate::{JobId, Manifest};

pub use compare::Change;
use history::{Cache, Outcome, Turn};
pub use words::{WordChange, Words};

/// An earlier run is looked for among so many of the project.
const MOST_RUNS: usize = 50;
/// So many steps are named to somebody who names none of them.
const MOST_NAMED: usize = 8;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    pub job_id: String,
    pub step: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The step's key in the last life of the job in which it came to its turn.
    pub key: Option<Key>,
    /// The last earlier result of the step.
    pub earlier: Option<Earlier>,
}

/// A result to compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Earlier {
    pub job_id: String,
    pub key: Key,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It did not run: a stored result has its key.
    Hit,
    /// It did not run: another step was making the same request.
    Joined,
    /// It did not run: its result of an earlier life of the job counts.
    Resumed,
    /// It did not run: a condition, or a failure of what it needs.
    Skipped { reason: String },
    /// It ran for the first time in this project.
    FirstRun,
    /// It ran because it had no result yet: earlier tries ended without one.
    NoResult { reason: String },
    /// It ran because its stored result could not be used.
    Refused { reason: String },
    /// It ran though its request is that of an earlier result.
    NotTaken { reason: String },
    /// It ran because its request is not that of its last earlier result.
    Changed { changes: Vec<Change> },
    /// As `Changed`, but one of the requests is not kept any more.
    ChangedUnseen { reason: String },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    #[error("the step {step:?} has not come to its turn in the job {job_id}")]
    NoTurn { job_id: String, step: String },
    #[error("the job {job_id} has no step {step:?}")]
    NoStep {
        job_id: String,
        step: String,
        /// One that it has, and that may have been meant.
        nearest: Option<String>,
        /// Those of the workflow.
        steps: Vec<String>,
    },
    #[error(transparent)]
    Run(#[from] SelectRunError),
    #[error(transparent)]
    Journal(#[from] TailError),
}

impl From<WhyError> for Failure {
    fn from(error: WhyError) -> Self {
        match error {
            WhyError::NoTurn { ref job_id, .. } => Failure::new(ExitCode::General, error.to_string())
                .hint(format!("`llama-orch show {job_id}` lists its steps")),
            WhyError::NoStep { ref job_id, ref nearest, ref steps, .. } => {
                let hint = nearest.as_ref().map_or_else(
                    || format!("it has {}; `llama-orch show {job_id}` lists all", some_of(steps)),
                    |nearest| format!("did you mean {nearest}?"),
                );
                Failure::new(ExitCode::Usage, error.to_string()).hint(hint)
            }
            WhyError::Run(error) => error.into(),
            WhyError::Journal(error) => error.into(),
        }
    }
}

/// Why a step of a job ran, or did not, when it last came to its turn.
pub fn why(runs: &Runs, home: &Store, job_id: &JobId, step: &str, now: UnixMicros) -> Result<Why, WhyError> {
    let mut turns = history::read(runs.tail(job_id), step)?;
    let Some(turn) = turns.pop() else {
        return Err(no_turn(&runs.view(job_id)?.manifest, step));
    };
    let earlier = match turns.iter().rev().find_map(Turn::result) {
        Some(key) => Some(Earlier { job_id: job_id.to_string(), key }),
        None => in_earlier_runs(runs, job_id, step, now)?,
    };
    let documents = Documents { runs, home, job_id };
    let verdict = judge(&turn, turns.last(), earlier.as_ref(), &documents);
    let key = turn
        .key
        .or_else(|| earlier.as_ref().filter(|_| verdict == Verdict::Resumed).map(|earlier| earlier.key));
    Ok(Why { job_id: job_id.to_string(), step: step.to_owned(), verdict, key, earlier })
}

/// Why nothing is told of a step: it has not begun, or there is none of this name.
fn no_turn(run: &Manifest, step: &str) -> WhyError {
    let (job_id, name) = (run.job_id.clone(), step.to_owned());
    // Of a job that has not begun no step is known.
    if run.lives == 0 || run.step(step).is_some() {
        return WhyError::NoTurn { job_id, step: name };
    }
    let ids = || run.steps().iter().map(|step| step.id.as_str());
    let nearest = nearest(step, ids()).map(str::to_owned);
    // Those of the workflow come first.
    WhyError::NoStep { job_id, step: name, nearest, steps: ids().map(str::to_owned).collect() }
}

fn some_of(steps: &[String]) -> String {
    let more = if steps.len() > MOST_NAMED { " …" } else { "" };
    match &steps[..steps.len().min(MOST_NAMED)] {
        [] => "none yet".to_owned(),
        named => named.join(", ") + more,
    }
}

/// The step's last result in runs of the same project that began before this one.
fn in_earlier_runs(
    runs: &Runs,
    job_id: &JobId,
    step: &str,
    now: UnixMicros,
) -> Result<Option<Earlier>, WhyError> {
    // One that cannot be read is no earlier result; `jobs` tells of it.
    let (rows, _troubles) = runs.list(now)?;
    let Some(at) = rows.iter().position(|row| row.job_id == job_id.as_str()) else { return Ok(None) };
    let of_project = rows[at + 1..].iter().filter(|row| row.project == rows[at].project);
    for row in of_project.take(MOST_RUNS) {
        let Ok(job_id) = JobId::new(&row.job_id) else { continue };
        let turns = history::read(runs.tail(&job_id), step).unwrap_or_default();
        if let Some(key) = turns.iter().rev().find_map(Turn::result) {
            return Ok(Some(Earlier { job_id: job_id.to_string(), key }));
        }
    }
    Ok(None)
}

fn judge(
    turn: &Turn,
    before: Option<&Turn>,
    earlier: Option<&Earlier>,
    documents: &Documents<'_>,
) -> Verdict {
    match (&turn.outcome, &turn.cache) {
        (Outcome::Skipped(reason), _) if reason == "resume" => return Verdict::Resumed,
        (Outcome::Skipped(reason), _) => return Verdict::Skipped { reason: reason.clone() },
        (_, Cache::Hit) => return Verdict::Hit,
        (_, Cache::Joined) => return Verdict::Joined,
        (_, Cache::Refused(reason)) => return Verdict::Refused { reason: reason.clone() },
        (_, Cache::Miss | Cache::Untold) => {}
    }
    match (earlier, turn.key) {
        (Some(earlier), Some(key)) if earlier.key == key => {
            Verdict::NotTaken { reason: not_taken(turn, &key, documents) }
        }
        (Some(earlier), Some(key)) => documents.compare(earlier, &key),
        (Some(_), None) => Verdict::ChangedUnseen { reason: "the journal does not tell its key".to_owned() },
        (None, _) => match before.map(|before| &before.outcome) {
            Some(Outcome::Failed { kind, message }) => {
                let kind = kind.map_or("unknown", FailureKind::word);
                Verdict::NoResult { reason: format!("it failed before ({kind}: {message})") }
            }
            Some(Outcome::Cancelled) => Verdict::NoResult { reason: "it was cancelled before".to_owned() },
            Some(Outcome::Open) => {
                Verdict::NoResult { reason: "the job was interrupted before it ended".to_owned() }
            }
            Some(Outcome::Skipped(_) | Outcome::Succeeded) | None => Verdict::FirstRun,
        },
    }
}

/// Why the result of an equal request was not used.
fn not_taken(turn: &Turn, key: &Key, documents: &Documents<'_>) -> String {
    if turn.has_parts {
        return "it is made of steps of its own, and each of these is looked up by itself".to_owned();
    }
    match &turn.cache {
        Cache::Miss => "the result is not in the store any more".to_owned(),
        _ => match documents.kind(key).as_deref() {
            Some("llm") | None => {
                "stored results were not looked at: the job ran with --no-cache, or the step \
                                   says `cache: false`"
                    .to_owned()
            }
            Some(kind) => {
                format!(
                    "stored results were not looked at: a `{kind}` step takes them only with `cache: true`"
                )
            }
        },
    }
}

/// Where requests are kept: with the results, and in each run those without.
struct Documents<'a> {
    runs: &'a Runs,
    home: &'a Store,
    job_id: &'a JobId,
}

impl Documents<'_> {
    fn get(&self, job_id: &JobId, key: &Key) -> Option<Value> {
        let of_run = Store::run(self.runs.path(job_id).join(".cache"));
        let document: KeyDocument = of_run.document(key).or_else(|| self.home.document(key))?;
        serde_json::from_str(document.text()).ok()
    }

    fn kind(&self, key: &Key) -> Option<String> {
        let document = self.get(self.job_id, key)?;
        document["kind"].as_str().map(str::to_owned)
    }

    fn compare(&self, earlier: &Earlier, key: &Key) -> Verdict {
        let unseen = |which: &str| Verdict::ChangedUnseen { reason: format!("{which} request is not kept") };
        let before = JobId::new(&earlier.job_id).ok().and_then(|job_id| self.get(&job_id, &earlier.key));
        let Some(before) = before else { return unseen("the earlier") };
        let Some(after) = self.get(self.job_id, key) else { return unseen("this job's") };
        Verdict::Changed { changes: compare::changes(&before, &after) }
    }
}
