//! All runs of a home: listed, and found by what people type.

use std::io;
use std::path::{Path, PathBuf};

use orch_core::{ExitCode, Failure, UnixMicros};

use super::{RunSummary, RunView, Tail};
use crate::run_folder::{self, JobId, LAST};

/// So many are named where a name fits several.
const MOST_NAMED: usize = 5;

/// The folder with the runs of a home. It need not exist.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
}

/// Why no run was chosen.
#[derive(Debug, thiserror::Error)]
pub enum SelectRunError {
    #[error("there is no job {0:?}")]
    NotFound(String),
    #[error("there is no job yet")]
    Nothing,
    #[error("several jobs begin with {selector:?}: {}", some_of(ids))]
    Ambiguous { selector: String, ids: Vec<JobId> },
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn some_of(ids: &[JobId]) -> String {
    let named: Vec<&str> = ids.iter().take(MOST_NAMED).map(JobId::as_str).collect();
    let more = if ids.len() > MOST_NAMED { " …" } else { "" };
    named.join(", ") + more
}

impl From<SelectRunError> for Failure {
    fn from(error: SelectRunError) -> Self {
        match &error {
            SelectRunError::NotFound(_) => Failure::new(ExitCode::JobNotFound, error.to_string())
                .hint("`llama-orch jobs` lists the jobs of this home"),
            SelectRunError::Nothing => Failure::new(ExitCode::JobNotFound, error.to_string())
                .hint("start one with `llama-orch run --spec job.yaml`"),
            SelectRunError::Ambiguous { .. } => {
                Failure::new(ExitCode::Usage, error.to_string()).hint("type more of the name")
            }
            SelectRunError::Io { source, .. } => {
                let exit = match source.kind() {
                    io::ErrorKind::PermissionDenied => ExitCode::PermissionDenied,
                    _ => ExitCode::General,
                };
                Failure::new(exit, format!("{error}: {source}"))
            }
        }
    }
}

impl Runs {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All runs, the newest first. One that cannot be read is told among the troubles.
    pub fn list(&self, now: UnixMicros) -> Result<(Vec<RunSummary>, Vec<String>), SelectRunError> {
        let mut rows = Vec::new();
        let mut troubles = Vec::new();
        for id in self.ids()? {
            match RunSummary::read(&self.root, &id, now) {
                Ok(row) => rows.push(row),
                Err(error) => troubles.push(format!("cannot read the job {id}: {error}")),
            }
        }
        // Moments of one form, in UTC: their text has their order. One that never began comes last.
        rows.sort_by(|one, other| {
            other.started_at.cmp(&one.started_at).then_with(|| one.job_id.cmp(&other.job_id))
        });
        Ok((rows, troubles))
    }

    /// The run that somebody means: its name, `last`, or a beginning that no other has.
    pub fn find(&self, selector: &str, now: UnixMicros) -> Result<JobId, SelectRunError> {
        if selector == LAST {
            return self.newest(now, |_| true)?.ok_or(SelectRunError::Nothing);
        }
        let mut ids = self.ids()?;
        ids.retain(|id| id.as_str().starts_with(selector));
        if let Some(exact) = ids.iter().find(|id| id.as_str() == selector) {
            return Ok(exact.clone());
        }
        match ids.len() {
            1 => Ok(ids.swap_remove(0)),
            0 => Err(SelectRunError::NotFound(selector.to_owned())),
            _ if selector.is_empty() => Err(SelectRunError::NotFound(String::new())),
            _ => Err(SelectRunError::Ambiguous { selector: selector.to_owned(), ids }),
        }
    }

    /// The newest run of a project.
    pub fn newest_of(&self, project: &str, now: UnixMicros) -> Result<Option<JobId>, SelectRunError> {
        self.newest(now, |row| row.project == project)
    }

    fn newest(
        &self,
        now: UnixMicros,
        fits: impl Fn(&RunSummary) -> bool,
    ) -> Result<Option<JobId>, SelectRunError> {
        let (rows, _) = self.list(now)?;
        let newest = rows.iter().find(|row| fits(row));
        Ok(newest.and_then(|row| JobId::new(&row.job_id).ok()))
    }

    pub fn view(&self, id: &JobId) -> Result<RunView, SelectRunError> {
        RunView::read(&self.root, id).map_err(|source| self.failed(id, source))
    }

    /// Reads a run's journal from its beginning.
    pub fn tail(&self, id: &JobId) -> Tail {
        Tail::new(run_folder::journal(&self.path(id)))
    }

    pub fn path(&self, id: &JobId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn failed(&self, id: &JobId, source: io::Error) -> SelectRunError {
        SelectRunError::Io { path: self.path(id), source }
    }

    /// Folders that are runs, in the order of their names.
    fn ids(&self) -> Result<Vec<JobId>, SelectRunError> {
        let failed = |source| SelectRunError::Io { path: self.root.clone(), source };
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let id = entry.file_name().to_str().and_then(|name| JobId::new(name).ok());
            ids.extend(id.filter(|_| run_folder::lock_file(&entry.path()).exists()));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}
