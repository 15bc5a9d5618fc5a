//! What people ask of a run: files in its `control/` folder, which the run's writer takes up.
//!
//! Whoever asks needs no connection to the run: the file is there when somebody resumes it next. A wish is
//! removed only after the journal holds it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Manifest;

/// A wish is a few words; anything longer is none of ours.
const SIZE_LIMIT: u64 = 64 * 1024;
const CANCEL: &str = "cancel";
const DECIDE: &str = "decide-";

/// An answer to a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub step: String,
    pub choice: String,
    /// Who decided, as far as that is known.
    pub by: String,
    /// When, as the journal writes times.
    pub at: String,
}

/// What somebody asked for, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) what: Asked,
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Cancel,
    Decide(Decided),
}

/// Why a decision is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    #[error("the job {job} waits for no decision")]
    NothingWaits { job: String },
    #[error("the step {step} of the job {job} waits for no decision")]
    NotAsked { job: String, step: String, waiting: Vec<String> },
    #[error("{choice:?} is no choice at {step}")]
    NotOffered { step: String, choice: String, choices: Vec<String> },
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        let failure = Failure::new(ExitCode::Usage, error.to_string());
        match &error {
            DecisionError::NothingWaits { job } => failure.hint(format!("llama-orch show {job}")),
            DecisionError::NotAsked { waiting, .. } => {
                failure.hint(format!("these wait: {}", waiting.join(", ")))
            }
            DecisionError::NotOffered { choices, .. } => {
                failure.hint(format!("choose one of {}", choices.join(", ")))
            }
        }
    }
}

/// Whether a run asks this, as its journal tells, and offers that choice.
pub fn check_decision(run: &Manifest, step: &str, choice: &str) -> Result<(), DecisionError> {
    let job = || run.job_id.clone();
    let asked = || run.steps().iter().filter(|step| step.question.is_some());
    let Some(question) = run.step(step).and_then(|step| step.question.as_ref()) else {
        let waiting: Vec<String> = asked().map(|step| step.id.clone()).collect();
        return Err(if waiting.is_empty() {
            DecisionError::NothingWaits { job: job() }
        } else {
            DecisionError::NotAsked { job: job(), step: step.to_owned(), waiting }
        });
    };
    if question.choices.iter().any(|offered| offered == choice) {
        return Ok(());
    }
    let choices = question.choices.clone();
    Err(DecisionError::NotOffered { step: step.to_owned(), choice: choice.to_owned(), choices })
}

/// Whether an answer for this gate is left and nobody has taken it up.
pub fn decision_is_left(control: &Path, step: &str) -> bool {
    control.join(decision_file(step)).is_file()
}

/// Leaves an answer for a gate. The last of several counts until one is taken up.
pub fn leave_decision(control: &Path, decided: &Decided) -> io::Result<()> {
    leave(control, &decision_file(&decided.step), &serde_json::to_vec(decided)?)
}

/// Steps of maps and loops have names that are no file's.
fn decision_file(step: &str) -> String {
    let digest = hex::encode(Sha256::digest(step.as_bytes()));
    format!("{DECIDE}{}.json", &digest[..16])
}

/// Leaves the wish that the run ends.
pub fn leave_cancel(control: &Path) -> io::Result<()> {
    leave(control, CANCEL, b"")
}

/// A run that has ended is not to be ended any more: whoever goes on with it later wants it to go on. Its writer
/// forgets what was there when it ended; whoever left the wish looks again, for it may have come too late for that.
pub fn forget_cancel(control: &Path) {
    match fs::remove_file(control.join(CANCEL)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(control = %control.display(), %error, "a wish that is over cannot be removed");
        }
        _ => {}
    }
}

/// Whether somebody wants something of the run that nobody has taken up.
pub fn has_wishes(control: &Path) -> bool {
    !wishes(control).is_empty()
}

/// All at once, or not at all: a reader never sees half a wish.
fn leave(control: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(control)?;
    let mut file = tempfile::Builder::new().prefix(".wish-").tempfile_in(control)?;
    io::Write::write_all(&mut file, text)?;
    file.as_file().sync_all()?;
    file.persist(control.join(name))?;
    Ok(())
}

/// Every wish that is there. What cannot be read as one is left alone: the folder also holds other things.
pub(crate) fn wishes(control: &Path) -> Vec<Wish> {
    let Ok(entries) = fs::read_dir(control) else { return Vec::new() };
    let mut wishes: Vec<Wish> = entries.flatten().filter_map(|entry| wish(entry.path())).collect();
    wishes.sort_by(|one, other| one.path.cmp(&other.path));
    wishes
}

fn wish(path: PathBuf) -> Option<Wish> {
    let name = path.file_name()?.to_str()?;
    if name == CANCEL {
        return Some(Wish { what: Asked::Cancel, path });
    }
    if !name.starts_with(DECIDE) {
        return None;
    }
    let mut text = Vec::new();
    fs::File::open(&path).ok()?.take(SIZE_LIMIT).read_to_end(&mut text).ok()?;
    let decided = serde_json::from_slice(&text).ok()?;
    Some(Wish { what: Asked::Decide(decided), path })
}

impl Wish {
    /// To be called when the journal holds it. One that stays is taken up again, which changes nothing then.
    pub(crate) fn done(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a taken wish cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(step: &str, choice: &str) -> Decided {
        Decided { step: step.into(), choice: choice.into(), by: "somebody".into(), at: String::new() }
    }

    #[test]
    fn wishes_are_found_until_they_are_done() {
        let run = tempfile::tempdir().unwrap();
        let control = run.path().join("control");
        assert!(wishes(&control).is_empty());
        leave_decision(&control, &decided("review", "approve")).unwrap();
        leave_decision(&control, &decided("loop/1/review", "reject")).unwrap();
        leave_cancel(&control).unwrap();
        let found = wishes(&control);
        assert_eq!(found.len(), 3);
        assert!(found.iter().any(|wish| wish.what == Asked::Decide(decided("loop/1/review", "reject"))));
        forget_cancel(&control);
        assert_eq!(wishes(&control).len(), 2, "decisions stay");
        found.iter().filter(|wish| wish.what != Asked::Cancel).for_each(Wish::done);
        assert!(wishes(&control).is_empty());
    }

    #[test]
    fn the_last_answer_to_a_gate_counts() {
        let run = tempfile::tempdir().unwrap();
        leave_decision(run.path(), &decided("review", "approve")).unwrap();
        leave_decision(run.path(), &decided("review", "reject")).unwrap();
        let found: Vec<Asked> = wishes(run.path()).into_iter().map(|wish| wish.what).collect();
        assert_eq!(found, [Asked::Decide(decided("review", "reject"))]);
    }

    #[test]
    fn what_is_no_wish_is_left_alone() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join("owner.json"), "{}").unwrap();
        fs::write(run.path().join("decide-torn.json"), "{\"step\":").unwrap();
        assert!(wishes(run.path()).is_empty());
        assert!(run.path().join("owner.json").exists());
    }
}
