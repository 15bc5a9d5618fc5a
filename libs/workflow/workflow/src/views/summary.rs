//! A run among others: one row.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use orch_core::UnixMicros;
use serde::{Deserialize, Serialize};

use super::run_view::{RunStatus, RunView};
use crate::journal::stamp::show;
use crate::run_folder::{self, JobId};
use crate::{JobStatus, JournalEnd};

/// A larger manifest is not read for a row: its journal is.
const LARGEST_MANIFEST: u64 = 64 * 1024 * 1024;

/// What a list tells of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    pub job_id: String,
    pub project: String,
    pub status: RunStatus,
    /// Of the workflow's own steps.
    pub steps_done: usize,
    pub steps: usize,
    /// Prompt and completion tokens.
    pub tokens: u64,
    /// RFC 3339; `None` for one that never began.
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub duration_s: Option<f64>,
}

/// The part of `manifest.json` that a row needs.
#[derive(Deserialize)]
struct Written {
    project: String,
    status: JobStatus,
    started_at: Option<String>,
    finished_at: Option<String>,
    duration_s: Option<f64>,
    usage: WrittenUsage,
    progress: WrittenProgress,
    journal: JournalEnd,
}

#[derive(Deserialize)]
struct WrittenUsage {
    total_tokens: u64,
}

#[derive(Deserialize)]
struct WrittenProgress {
    done: usize,
    all: usize,
}

impl RunSummary {
    /// The manifest is enough where it knows the whole journal and nobody is to be looked for.
    pub(super) fn read(runs: &Path, id: &JobId, now: UnixMicros) -> io::Result<Self> {
        let run = runs.join(id.as_str());
        match Written::read(&run) {
            Some(written) if written.status != JobStatus::Running => Ok(written.summary(id)),
            _ => Ok(Self::of(&RunView::read(runs, id)?, now)),
        }
    }

    /// The row of a run that was looked at.
    pub fn of(view: &RunView, now: UnixMicros) -> Self {
        let manifest = &view.manifest;
        let (steps_done, steps) = manifest.progress();
        Self {
            job_id: view.id.to_string(),
            project: manifest.project.clone(),
            status: view.status,
            steps_done,
            steps,
            tokens: manifest.usage.total(),
            started_at: manifest.started_at.map(show),
            finished_at: manifest.finished_at.map(show),
            duration_s: view.duration_s(now),
        }
    }
}

impl Written {
    /// `None` where there is none, or it knows less than the journal.
    fn read(run: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(run_folder::manifest(run)).ok()?.take(LARGEST_MANIFEST).read_to_end(&mut text).ok()?;
        let written: Self = serde_json::from_slice(&text).ok()?;
        let journal = run_folder::journal(run).metadata().ok()?;
        (journal.len() == written.journal.bytes).then_some(written)
    }

    fn summary(self, id: &JobId) -> RunSummary {
        RunSummary {
            job_id: id.to_string(),
            project: self.project,
            status: RunStatus::of(Some(self.status), false),
            steps_done: self.progress.done,
            steps: self.progress.all,
            tokens: self.usage.total_tokens,
            started_at: self.started_at,
            finished_at: self.finished_at,
            duration_s: self.duration_s,
        }
    }
}
