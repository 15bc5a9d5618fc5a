//! What a job was begun with, kept in its folder: the workflow with the files that it names, and its inputs. A job
//! goes on with these, whatever became of the files they were read from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use orch_core::{ByteCount, ExitCode, Failure};
use serde_json::{Map, Value};
use workflow::{Manifest, RunFolder};
use workflow_spec::{JobSpec, LONGEST_SPEC, LoadSpec, SpecErrors};

/// Of all sub-workflows together.
const LARGEST_PARTS: ByteCount = ByteCount::from_mib(64);

/// Sub-workflows from this machine's disk, beside the spec that names them.
pub struct SpecFolder(pub PathBuf);

impl LoadSpec for SpecFolder {
    fn load(&self, path: &str) -> Result<String, String> {
        read_spec_file(&self.0.join(path)).map_err(|error| error.to_string())
    }
}

/// A spec's text; longer files than any spec are refused.
pub fn read_spec_file(path: &Path) -> io::Result<String> {
    read_spec_text(File::open(path)?)
}

/// The same from anywhere.
pub fn read_spec_text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than is allowed: the reader of specs tells that it is too long.
    source.take(LONGEST_SPEC as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Keeps what the job is begun with. Whole before the first step runs.
pub fn keep(folder: &RunFolder, spec: &JobSpec, inputs: &Map<String, Value>) -> Result<(), Failure> {
    let parts = parts_file(folder);
    if !spec.parts.is_empty() || parts.exists() {
        let text = serde_json::to_vec_pretty(&spec.parts).map_err(|error| unusable(&parts, &error))?;
        engine_process::write_private(&parts, &text).map_err(|error| unusable(&parts, &error))?;
    }
    Ok(folder.write_inputs(&spec.source, inputs)?)
}

/// Why a kept workflow cannot be gone on with.
#[derive(Debug)]
pub enum KeptError {
    /// The job was ended before anything was kept: it never began.
    NeverBegun,
    /// Another version wrote it, or somebody changed it.
    Spec(SpecErrors),
    Failure(Failure),
}

impl From<Failure> for KeptError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// The workflow that a job was begun with.
pub fn kept_spec(folder: &RunFolder) -> Result<JobSpec, KeptError> {
    let text = folder.read_spec().map_err(Failure::from)?.ok_or(KeptError::NeverBegun)?;
    JobSpec::read(&text, &kept_parts(folder)?).map_err(KeptError::Spec)
}

/// The inputs that a job was begun with.
pub fn kept_inputs(folder: &RunFolder) -> Result<Map<String, Value>, KeptError> {
    folder.read_inputs().map_err(Failure::from)?.ok_or(KeptError::NeverBegun)
}

/// A job goes on with its workflow as it was edited, not with that of another project: its files and whatever looks
/// for it by its project would be told of the wrong one.
pub fn check_project(job: &Manifest, spec: &JobSpec) -> Result<(), Failure> {
    if job.lives == 0 || job.project == spec.project {
        return Ok(());
    }
    let message = format!(
        "the job {} is of the project {}, and the workflow of {}",
        job.job_id, job.project, spec.project
    );
    Err(Failure::new(ExitCode::Usage, message).hint("run the workflow as a job of its own, without --resume"))
}

fn kept_parts(folder: &RunFolder) -> Result<BTreeMap<String, String>, Failure> {
    let path = parts_file(folder);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unusable(&path, &error)),
    };
    let mut text = Vec::new();
    file.take(LARGEST_PARTS.0).read_to_end(&mut text).map_err(|error| unusable(&path, &error))?;
    serde_json::from_slice(&text).map_err(|error| unusable(&path, &error))
}

/// Path to text of every sub-workflow.
fn parts_file(folder: &RunFolder) -> PathBuf {
    folder.inputs().join("workflows.json")
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(ExitCode::General, format!("cannot use {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use workflow::JobId;

    use super::*;

    #[test]
    fn a_job_is_read_back_as_it_was_begun_without_the_files_it_was_read_from() {
        let folder = tempfile::tempdir().unwrap();
        let specs = folder.path().join("specs");
        std::fs::create_dir(&specs).unwrap();
        std::fs::write(specs.join("part.yaml"), "project: part\nsteps: {one: {pass: {value: 1}}}\n").unwrap();
        let text = "project: whole\ninputs: {n: integer}\nsteps: {all: {workflow: part.yaml}}\n";
        let spec = JobSpec::read(text, &SpecFolder(specs.clone())).unwrap();
        let inputs = json!({"n": 3}).as_object().unwrap().clone();
        let id = JobId::new("job").unwrap();
        let run = RunFolder::create(&folder.path().join("runs"), &id, "whole", "a test").unwrap();
        assert!(matches!(kept_spec(&run), Err(KeptError::NeverBegun)));
        keep(&run, &spec, &inputs).unwrap();
        std::fs::remove_dir_all(&specs).unwrap();

        let again = kept_spec(&run).unwrap();
        assert_eq!((again.source, again.sha256, again.parts), (spec.source, spec.sha256, spec.parts));
        assert_eq!(kept_inputs(&run).unwrap(), inputs);
    }

    #[test]
    fn every_example_is_a_workflow() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/workflows");
        let mut found = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "yaml" || it == "json") {
                let text = read_spec_file(&path).unwrap();
                let read = JobSpec::read(&text, &SpecFolder(folder.clone()));
                assert!(read.is_ok(), "{}\n{}", path.display(), read.unwrap_err());
                found += 1;
            }
        }
        assert!(found >= 4, "{found} examples");
    }
}
