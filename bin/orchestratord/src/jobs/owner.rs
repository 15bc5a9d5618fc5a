//! Whose a job is: a file in the run's folder, written before the job is taken. A daemon that comes back goes on with
//! the jobs that have one, and with no others.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use orch_api::JobOptions;
use serde::{Deserialize, Serialize};
use workflow::owner_file;

/// Far above any real file of this kind.
const MAX_FILE: u64 = 64 * 1024;

/// The submitter of a job, and how it is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The id of the key that it was submitted with, or the word for the commands of this home.
    pub(crate) submitter: String,
    /// When, RFC 3339.
    pub(crate) submitted_at: String,
    /// Names what was submitted, so that the same can be told from another.
    pub(crate) request: String,
    /// Where the journal ended when somebody last wanted the job to go on: one that has ended there is to be taken up.
    #[serde(default)]
    pub(crate) wanted_at: u64,
    /// How many lives of the job in a row have begun that came to no good end and brought no result.
    #[serde(default)]
    pub(crate) lives_in_vain: u32,
    /// How many results there were when the last of them began.
    #[serde(default)]
    pub(crate) results: usize,
    #[serde(default)]
    pub(crate) options: JobOptions,
}

impl Owner {
    /// `None` where the run is none of a daemon's, or the file cannot be understood.
    pub(crate) fn read(run: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(owner_file(run)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// A life of the job begins, with so many results of those before.
    pub(crate) fn begin_life(&mut self, results: usize) {
        let got_further = results > self.results;
        self.lives_in_vain = if got_further { 1 } else { self.lives_in_vain.saturating_add(1) };
        self.results = results;
    }

    /// All at once or not at all.
    pub(crate) fn write(&self, run: &Path) -> io::Result<()> {
        engine_process::write_private(&owner_file(run), &serde_json::to_vec(self)?)
    }
}
