//! One run, as its journal tells it.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use orch_core::UnixMicros;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::journal::scan::{ScanError, scan};
use crate::run_folder::{self, Holder, JobId, READ_AT_ONCE, lock};
use crate::{JobStatus, Manifest};

/// How a run is, with a look at whether anybody is running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It was submitted to a control plane, which has not begun it.
    Queued,
    Running,
    /// The process that ran it is gone, and it has not ended.
    Interrupted,
    /// Only gates are left.
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunStatus {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has come to an end.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    pub(super) fn of(status: Option<JobStatus>, is_live: bool) -> Self {
        match status {
            Some(JobStatus::Succeeded) => Self::Succeeded,
            Some(JobStatus::Failed) => Self::Failed,
            Some(JobStatus::Cancelled) => Self::Cancelled,
            Some(JobStatus::Waiting) => Self::Waiting,
            Some(JobStatus::Running) | None if is_live => Self::Running,
            Some(JobStatus::Running) | None => Self::Interrupted,
        }
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// A run at one moment.
#[derive(Clone, Debug)]
pub struct RunView {
    pub id: JobId,
    pub path: PathBuf,
    pub status: RunStatus,
    /// Whether a control plane takes care of it.
    pub is_submitted: bool,
    /// What the journal tells.
    pub manifest: Manifest,
    /// Who runs it, if somebody does and says so.
    pub holder: Option<Holder>,
    /// The first line that is damaged while whole ones follow it. What is told is what was before it.
    pub damaged_line: Option<u64>,
}

impl RunView {
    pub(super) fn read(runs: &Path, id: &JobId) -> io::Result<Self> {
        let path = runs.join(id.as_str());
        let (mut manifest, mut damaged_line) = read_journal(&path, id)?;
        let mut is_live = false;
        if has_not_ended(&manifest) {
            is_live = is_held(&path);
            if !is_live {
                // It may have ended between these two looks.
                (manifest, damaged_line) = read_journal(&path, id)?;
                is_live = has_not_ended(&manifest) && is_held(&path);
            }
        }
        let is_submitted = run_folder::owner_file(&path).is_file();
        let status = match RunStatus::of(manifest.status, is_live) {
            RunStatus::Interrupted if manifest.lives == 0 && is_submitted => RunStatus::Queued,
            status => status,
        };
        let holder = if is_live { lock::holder(&run_folder::lock_file(&path)) } else { None };
        Ok(Self { id: id.clone(), path, status, is_submitted, manifest, holder, damaged_line })
    }

    /// Seconds for which the job ran, up to now while it does.
    pub fn duration_s(&self, now: UnixMicros) -> Option<f64> {
        match self.status {
            RunStatus::Running => self.manifest.duration_until(now),
            _ => self.manifest.duration_s(),
        }
    }

    /// The manifest as JSON, with what only a look tells.
    pub fn to_json(&self, now: UnixMicros) -> Value {
        let mut document = self.manifest.to_value();
        document["status"] = json!(self.status);
        document["duration_s"] = json!(self.duration_s(now));
        document["path"] = json!(self.path);
        document["holder"] = json!(self.holder);
        document["damaged_line"] = json!(self.damaged_line);
        document
    }
}

fn has_not_ended(manifest: &Manifest) -> bool {
    matches!(manifest.status, Some(JobStatus::Running) | None)
}

fn is_held(run: &Path) -> bool {
    lock::is_held(&run_folder::lock_file(run))
}

/// What a journal tells, and the line that is damaged where one is. One that is not there yet tells nothing.
fn read_journal(run: &Path, id: &JobId) -> io::Result<(Manifest, Option<u64>)> {
    let mut manifest = Manifest::new(id.as_str());
    let file = match File::open(run_folder::journal(run)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((manifest, None)),
        Err(error) => return Err(error),
    };
    let mut end = 0;
    let scanned = scan(BufReader::with_capacity(READ_AT_ONCE, file), |line, fact| {
        end += line.len() as u64 + 1;
        manifest.apply(fact, end);
    });
    match scanned {
        Ok(_) => Ok((manifest, None)),
        Err(ScanError::Damaged { line }) => Ok((manifest, Some(line))),
        Err(ScanError::Io(error)) => Err(error),
    }
}
